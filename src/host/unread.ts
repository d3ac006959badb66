/** What a descriptor of another process holds that nobody has read yet. */
import { closeSync } from 'node:fs';
import { duplicateDescriptors, libc } from './libc.ts';

const ioctl = libc.func('int ioctl(int fd, unsigned long request, _Out_ int* count)');

/** FIONREAD of ioctl_tty(2); inotify and fanotify answer it, too. */
const FIONREAD = 0x541b;

/** In bytes. 0 also where that cannot be asked, or the descriptor is gone. */
export function unreadBytes(pid: number, fd: number): number {
  const copies: number[] = [];
  try {
    copies.push(...duplicateDescriptors(pid, [fd]));
    const count = [0];
    return copies[0] !== undefined && ioctl(copies[0], FIONREAD, count) === 0 ? count[0] ?? 0 : 0;
  } catch {
    return 0;
  } finally {
    copies.forEach((copy) => closeSync(copy));
  }
}
