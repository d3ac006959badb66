/** CRIU's log as lines of errors, each with what CRIU was looking at when it wrote it. */
import { printable } from '../text.ts';

export interface ErrorLine {
  /** "criu/sk-inet.c:504". */
  readonly file: string;
  readonly text: string;
  /** "pid 656 (python3, 1 inside), descriptor 4"; undefined when the log does not tell. */
  readonly where: string | undefined;
}

/** "(00.012345)      7: Error (criu/x.c:1): text"; the number is the pid inside the container of a task that is being restored. */
const ERROR_LINE = /^(?:\(\s*\d+\.\d+\)\s*)?(?:pie:\s*)?(?:\s*(\d+):\s+)?Error \(([^)]*)\):\s*(.*)$/;
const TASK = /Dumping task \(pid: (\d+) comm: (.*)\)$/;
const INNER = /\bsid=-?\d+ pgid=-?\d+ pid=(\d+)$/;
const DESCRIPTOR = /\b\d+ fdinfo (-?\d+): pos:/;
/** What CRIU says when it has left the tasks behind and goes on to what they share. */
const AFTER_TASKS = /Dumping (?:mountpoints|file-locks|pstree|shared memory|netns links|\d+\(\d+\)'s namespaces)|Dump (?:UTS|IPC|NET|TIME) |Dumping \d+ sets|Dumping finished/;
/** Lines of the log that matter here: all others are left alone, because a log can be long. */
const MARKS = /Error \(|Dumping |fdinfo |pgid=|Dump |----/;

class Place {
  #pid: string | undefined;
  #comm = '';
  #inner: string | undefined;
  #descriptor: string | undefined;

  /** Takes notice of one line. */
  follow(line: string): void {
    const task = TASK.exec(line);
    if (task !== null) {
      [this.#pid, this.#comm, this.#inner, this.#descriptor] = [task[1], task[2] ?? '', undefined, undefined];
    } else if (AFTER_TASKS.test(line)) {
      this.#pid = undefined;
    } else if (line.endsWith('----')) {
      this.#descriptor = undefined;
    }
    this.#inner = INNER.exec(line)?.[1] ?? this.#inner;
    this.#descriptor = DESCRIPTOR.exec(line)?.[1] ?? this.#descriptor;
  }

  describe(restoredPid: string | undefined): string | undefined {
    if (restoredPid !== undefined) return `process ${restoredPid} inside`;
    if (this.#pid === undefined) return undefined;
    const inside = this.#inner === undefined || this.#inner === this.#pid ? '' : `, ${this.#inner} inside`;
    const descriptor = this.#descriptor === undefined || Number(this.#descriptor) < 0 ? '' : `, descriptor ${this.#descriptor}`;
    return `pid ${this.#pid} (${printable(this.#comm)}${inside})${descriptor}`;
  }
}

export function errorLines(log: string): ErrorLine[] {
  const lines: ErrorLine[] = [];
  const place = new Place();
  for (const line of log.split('\n')) {
    if (!MARKS.test(line)) continue;
    const match = line.includes('Error (') ? ERROR_LINE.exec(line) : null;
    if (match === null) place.follow(line);
    else lines.push({ file: match[2] ?? '', text: match[3] ?? '', where: place.describe(match[1]) });
  }
  return lines;
}
