/**
 * Numbered places where a test makes an operation fail or its process die. Armed only by the configuration key
 * `testing.failpoint`, written NAME[:COUNT]=ACTION: at the COUNT-th hit of NAME (first unless told), do ACTION. Several
 * stand between commas. @FILE arms what the file says, and again whenever it says something else.
 * Every step of an operation has two: "checkpoint.seal" before it and "checkpoint.seal.after" behind it.
 */
import { StasisError } from './errors.ts';

export type FailpointAction = 'fail' | 'kill' | 'stop' | `sleep ${number}`;

export interface Failpoints {
  /** Does nothing unless this name is armed. */
  hit(name: string, options: { signal: AbortSignal | undefined }): Promise<void>;
}

export const noFailpoints: Failpoints = { hit: async () => {} };

export interface FailpointEffects {
  signalSelf(signal: 'SIGKILL' | 'SIGSTOP'): void;
  sleep(ms: number, options: { signal: AbortSignal | undefined }): Promise<void>;
}

export function parseFailpoint(text: string): { name: string; count: number; action: FailpointAction } {
  const match = /^([a-z.-]+)(?::(\d+))?=(fail|kill|stop|sleep \d+)$/.exec(text);
  if (match === null) {
    throw new StasisError('CONFIG_INVALID', `testing.failpoint: ${JSON.stringify(text)} is not a failpoint`, { hint: 'write NAME[:COUNT]=fail, =kill, =stop or "=sleep MS"' });
  }
  return { name: match[1] ?? '', count: Number(match[2] ?? 1), action: match[3] as FailpointAction };
}

export function armFailpoints(text: string, effects: FailpointEffects): Failpoints {
  const armed = text.split(',').map((one) => armFailpoint(one, effects));
  return {
    hit: async (name, how) => {
      for (const one of armed) await one.hit(name, how);
    },
  };
}

/**
 * `read` gives what is armed now in its first line, nothing for nothing. Any change arms all of it anew: what stands in
 * the lines below tells one arming from the next with the same words.
 */
export function followFailpoints(read: () => string, effects: FailpointEffects): Failpoints {
  let text = '';
  let armed = noFailpoints;
  return {
    hit: async (name, how) => {
      const now = read();
      if (now !== text) {
        const [line = ''] = now.split('\n');
        armed = line === '' ? noFailpoints : armFailpoints(line, effects);
      }
      text = now;
      await armed.hit(name, how);
    },
  };
}

function armFailpoint(text: string, effects: FailpointEffects): Failpoints {
  const armed = parseFailpoint(text);
  let left = armed.count;
  return {
    hit: async (name, { signal }) => {
      if (name !== armed.name || --left !== 0) return;
      if (armed.action === 'fail') throw new StasisError('INTERNAL', `failpoint ${name}`);
      if (armed.action.startsWith('sleep')) await effects.sleep(Number(armed.action.slice(6)), { signal });
      else effects.signalSelf(armed.action === 'kill' ? 'SIGKILL' : 'SIGSTOP');
    },
  };
}
