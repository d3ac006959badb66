/** Writes opened bytes to where they belong, inside a worker. */
import { closeSync, constants, writeSync } from 'node:fs';
import { openat2, RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS } from '../../host/libc.ts';
import { unpackFiles } from './file-list.ts';
import type { WireSink } from './messages.ts';

const RESOLVE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
const WRITE_FLAGS = constants.O_WRONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK | constants.O_NOCTTY;

export function writeSink(sink: WireSink, data: Buffer): void {
  switch (sink.kind) {
    case 'fd':
      writeFully(sink.fd, data, sink.offset);
      return;
    case 'memory':
      new Uint8Array(sink.buffer, sink.offset, data.length).set(data);
      return;
    case 'files': {
      let at = 0;
      for (const file of unpackFiles(sink.list)) {
        if (file.path.length > 0) writeFile(sink.root, file, data.subarray(at, at + file.length), sink.create[file.index] === 1);
        at += file.length;
      }
    }
  }
}

function writeFully(fd: number, data: Buffer, offset: number): void {
  for (let done = 0; done < data.length; ) done += writeSync(fd, data, done, data.length - done, offset + done);
}

function writeFile(root: number, file: { path: Buffer; offset: number }, data: Buffer, create: boolean): void {
  const fd = create ? createBeneath(root, file.path) : openat2(root, file.path, WRITE_FLAGS, 0, RESOLVE);
  try {
    writeFully(fd, data, file.offset);
  } finally {
    closeSync(fd);
  }
}

/** Fails when anything has that name already: an archive must not reach a file that it did not make. */
export function createBeneath(root: number, path: Buffer): number {
  return openat2(root, path, WRITE_FLAGS | constants.O_CREAT | constants.O_EXCL, 0o600, RESOLVE);
}
