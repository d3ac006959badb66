/**
 * The environment of the programs that are run: criu, runtimes, their hooks, guards. None of ours goes to them, because there
 * may be credentials in it, and criu's children are containers.
 */

/** Where programs are found, and criu's own switch that makes it fail (its test/zdtm.py). */
const PASSED_ON = ['PATH', 'CRIU_FAULT'] as const;

const DEFAULTS = { PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', HOME: '/', LANG: 'C.UTF-8' };

export function childEnvironment(more: Readonly<Record<string, string>> = {}): Record<string, string> {
  // The one place beside the configuration: what is read here is passed on and never looked at.
  // eslint-disable-next-line node/no-process-env
  const { env } = process;
  const passed = PASSED_ON.flatMap((name) => (env[name] === undefined ? [] : [[name, env[name]]]));
  return { ...DEFAULTS, ...Object.fromEntries(passed), ...more };
}
