/**
 * CRIU packs what lies in a tmpfs with tar, without what stands beside the files: extended attributes, ACLs, file
 * capabilities, times finer than a second. tar takes options from its environment, too (TAR_OPTIONS).
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { errnoCode } from '../../core/errors.ts';
import { TAR_ATTRIBUTES } from '../toolchain.ts';
import type { Toolchain } from '../types.ts';

/** SELinux labels new files by its policy. */
const ALL = ['--xattrs-include=*', '--xattrs-exclude=security.selinux'];
/** What the owner of a file may set: nothing that a program gets rights from, in an archive that a stranger wrote. */
const UNPRIVILEGED = ['--xattrs-include=user.*'];

/** For criu's environment, in a dump and in a restore. */
export function tarEnvironment(
  { features }: Toolchain, { imported = false }: { readonly imported?: boolean | undefined } = {},
): Record<string, string> {
  if (features[TAR_ATTRIBUTES] !== true) return {};
  return { TAR_OPTIONS: ['--xattrs', ...(imported ? UNPRIVILEGED : ALL), '--acls'].join(' ') };
}

/** Lines of a restore's log in which tar tells what it could not set, which is no error to it. */
export function attributesNotSet(workDir: string): string[] {
  let log: string;
  try {
    log = readFileSync(join(workDir, 'restore.log'), 'latin1');
  } catch (error) {
    if (errnoCode(error) === 'ENOENT') return [];
    throw error;
  }
  return [...log.matchAll(/^tar: .*(Cannot set .*)$/gm)].map(([, what = '']) => what);
}
