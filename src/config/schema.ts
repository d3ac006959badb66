/**
 * The configuration of the agent: one schema with the type, default and meaning of every key. The environment
 * name of a key, its flag and its row in docs/CONFIG.md follow from here. Values are deeply frozen once loaded.
 */
import { availableParallelism, hostname, totalmem } from 'node:os';
import * as v from 'valibot';
import { LONGEST_TIMER_MS } from '../core/clock.ts';
import { GiB, MiB, parseBytes, parseDuration } from '../core/units.ts';

/** Bytes, written as 64M, 1.5G or a number. */
export type Bytes = number;
/** Milliseconds, written as 250ms, 30s, 2m or 1h. */
export type Millis = number;

function parsed<T>(parse: (text: string) => T, expected: string) {
  return v.rawTransform<string | number, T>(({ dataset, addIssue, NEVER }) => {
    try {
      return parse(String(dataset.value));
    } catch {
      addIssue({ message: `expected ${expected}` });
      return NEVER;
    }
  });
}

const scalar = v.union([v.string(), v.number()], 'expected a text or a number');
const size = v.pipe(scalar, parsed<Bytes>(parseBytes, 'a size such as 64M or 1.5G'));
const pause = v.pipe(scalar, parsed<Millis>(parseDuration, 'a duration such as 0s, 250ms or 2s'));
const duration = v.pipe(scalar, parsed<Millis>(parseDuration, 'a duration such as 250ms, 30s or 2m'), v.check((ms) => ms > 0, 'must be longer than 0'));
/** A guard counts it with a timer. */
const budget = v.pipe(duration, v.check((ms) => ms <= LONGEST_TIMER_MS, 'must be at most 24 days (596h)'));
const text = v.string('expected a text');
const path = v.pipe(text, v.check((value) => value.startsWith('/') && !value.includes('\0'), 'expected an absolute path'));
const optionalPath = v.union([v.literal(''), path], 'expected an absolute path or nothing');

/** From the environment and from flags lists come separated by commas. */
function list<T extends v.GenericSchema<string, string>>(item: T) {
  const split = v.pipe(text, v.transform((value) => value.split(',').map((part) => part.trim()).filter((part) => part !== '')));
  return v.pipe(v.union([v.array(text), split], 'expected a list'), v.array(item));
}

function integer(min: number, max: number) {
  const message = `expected a whole number from ${min} to ${max}`;
  const number = v.pipe(scalar, v.transform((value) => (value === '' ? Number.NaN : Number(value))));
  return v.pipe(number, v.number(message), v.integer(message), v.minValue(min, message), v.maxValue(max, message));
}

function choice<const T extends readonly [string, ...string[]]>(options: T) {
  return v.picklist(options, `expected one of ${options.join(', ')}`);
}

const address = v.pipe(text, v.regex(/^$|^([^:\s]+|\[[0-9a-fA-F:]+\]):\d{1,5}$/, 'expected host:port, [ipv6]:port or nothing'));

const endpoint = v.pipe(text, v.regex(/^$|^https?:\/\/([^/:@\s?#]+|\[[0-9a-fA-F:]+\])(:\d{1,5})?\/?$/, 'expected https://host[:port] without a path, or nothing'));

/** A key: how its value is written, what it is when nobody says, and what it means. */
function key<const T extends v.GenericSchema, const D>(schema: T, fallback: D, meaning: string) {
  return v.pipe(v.optional(schema, fallback as never), v.description(meaning));
}

/** The memory that this process may use: that of its control group, or of the machine. */
function usableMemory(): number {
  const constrained = process.constrainedMemory();
  return constrained > 0 && constrained < totalmem() ? constrained : totalmem();
}

/**
 * A quarter of the memory, at most 8 GiB. The staging doubles what a container holds while it is being saved, on the
 * very node where its neighbours run: at a quarter the node still breathes, and a container that fits thaws at memory
 * speed. One that does not fit is slowed down to the speed of sealing, which needs no more than 8 GiB to stay busy.
 */
export function defaultStaging(memory: number): Bytes {
  return Math.min(8 * GiB, Math.floor(memory / 4 / MiB) * MiB);
}

function runtime(name: string, roots: readonly string[]) {
  return v.optional(v.strictObject({
    binary: key(text, name, `Program of ${name}: a name on the PATH or an absolute path.`),
    roots: key(list(path), [...roots], `State directories in which containers of ${name} are looked for (its --root).`),
  }), {} as never);
}

function group<const T extends v.ObjectEntries>(entries: T) {
  return v.optional(v.strictObject(entries), {} as never);
}

export const defaultSocket = '/run/stasis/agent.sock';
export const defaultConfigFile = '/etc/stasis/agent.yaml';

export const schema = v.strictObject({
  nodeName: key(text, hostname(), 'Name of this node in checkpoints and logs. Default: the host name.'),
  socket: key(path, defaultSocket, 'UNIX socket of the API, mode 0600: whoever can open it may do everything.'),
  listen: group({
    address: key(address, '', 'TCP address of the API, host:port. Only with all three of listen.tls; empty for none.'),
    tls: group({
      cert: key(optionalPath, '', "File with the agent's certificate chain (PEM)."),
      key: key(optionalPath, '', "File with the agent's private key (PEM)."),
      ca: key(optionalPath, '', 'File with the certificates (PEM) that must have signed those of clients.'),
    }),
  }),
  stateDirectory: key(path, '/var/lib/stasis', 'What must survive a reboot: repository, keys, journal. On a real disk.'),
  runDirectory: key(path, '/run/stasis', 'What must not survive a reboot: guards, working directories. On tmpfs.'),
  repository: group({
    directory: key(optionalPath, '', 'Directory of the repository; empty for repository below stateDirectory. Not together with repository.s3.'),
    s3: group({
      bucket: key(v.pipe(text, v.regex(/^$|^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/, 'expected the name of a bucket: 3 to 63 of a-z, 0-9, "." and "-"')), '', 'Bucket that holds the repository instead of a directory. Credentials come as AWS tools take them: environment, profile, web identity, role.'),
      prefix: key(v.pipe(text, v.regex(/^$|^[A-Za-z0-9_.-]+(\/[A-Za-z0-9_.-]+)*$/, 'expected names of A-Z, a-z, 0-9, "_", "." and "-" with "/" between them')), '', 'What the keys of all objects begin with, so that a bucket can hold more than the repository.'),
      endpoint: key(endpoint, '', 'URL of the provider, https://host[:port]; empty for AWS.'),
      region: key(text, '', 'Region of the bucket; empty for that of the AWS configuration, with an endpoint us-east-1.'),
      pathStyle: key(choice(['auto', 'yes', 'no']), 'auto', 'Whether the bucket is in the path (https://host/bucket) or in the name (https://bucket.host). "auto": in the path when there is an endpoint.'),
      storageClass: key(text, '', 'Storage class of new objects, as the provider calls it; empty for its default. Archives that must be thawed first do not work.'),
      encryption: key(choice(['bucket', 's3', 'kms', 'customer']), 'bucket', 'Encryption by the provider, beside our own: as the bucket does it, with its keys (SSE-S3), its KMS (SSE-KMS), or with customerKeyFile (SSE-C).'),
      kmsKeyId: key(text, '', 'Key of the KMS for encryption "kms"; empty for the default one.'),
      customerKeyFile: key(optionalPath, '', 'File with the 32 bytes of the key for encryption "customer", raw or in base64.'),
      caFile: key(optionalPath, '', 'File with the CA certificates (PEM) to trust at the endpoint instead of those of the system.'),
      parallel: key(integer(1, 256), 8, 'Uploads, and downloads, at the same time.'),
      bandwidth: key(size, 0, 'Most bytes per second that this node sends, and receives; 0 for no limit.'),
      patience: key(duration, '5m', 'How long a request is repeated while the provider does not answer, or says that it is busy. Budgets and deadlines of operations end it earlier.'),
    }),
    plaintextFor: key(list(v.pipe(text, v.regex(/^(-|[a-z0-9]([a-z0-9-]*[a-z0-9])?)\/[A-Za-z0-9_.+*-]+$/, 'expected NAMESPACE/NAME with the namespace written out; "-" for containers outside Kubernetes, * in names for any characters'))), [], 'Containers whose checkpoints are NOT encrypted: NAMESPACE/NAME, with * in the name for any characters; "-" is the namespace of containers outside Kubernetes. Each such checkpoint is an audit event and is shown as plaintext.'),
    quota: key(size, '0', 'Bytes that the repository may have in all; a checkpoint that may not fit is refused before its container is frozen. 0: no limit.'),
    namespaceQuotas: key(list(text), [], 'Bytes that the checkpoints of a namespace may need in all: shop=10G, with * for any characters; the first one that fits counts, for each namespace by itself.'),
    grace: key(duration, '12h', 'How long a writer, reader or prune must have been silent before another one gives it up for dead. Longer than any checkpoint takes.'),
    listLag: key(pause, '0s', 'How far the lists of the store may lag behind its objects; whoever deletes waits for it. 0s for directories and stores whose lists are consistent, as S3 is.'),
  }),
  retention: group({
    last: key(integer(0, 1_000_000), 0, 'So many checkpoints of each lineage stay; older ones are deleted after each checkpoint. 0: all.'),
    age: key(text, '', 'Checkpoints older than this are deleted (48h), but never the newest of a lineage; empty: none.'),
    lineageBytes: key(size, '0', 'Bytes that the checkpoints of a lineage need; the oldest are deleted, but never the newest. 0: no limit.'),
    bytes: key(size, '0', 'Bytes that all checkpoints need; the oldest are deleted, but never the newest of a lineage. 0: no limit.'),
    rules: key(list(text), [], 'Limits for some containers, instead of those above: SELECTOR:last=3:age=24h:lineage-bytes=1G:bytes=10G. A selector is NAME or NAMESPACE/NAME with * for any characters; the first one that fits counts.'),
    namespaces: key(list(text), [], 'Limits of whole namespaces, beside those above: NAMESPACE:last=100:age=720h:bytes=50G, with * for any characters; the first one that fits counts, for each namespace by itself.'),
  }),
  keys: group({
    provider: key(choice(['file', 'directory', 'exec']), 'file', "Where this node's private keys are: in keys.file, in the folder keys.directory, or behind keys.command (docs/KEYS.md)."),
    file: key(optionalPath, '', "File with this node's private keys, mode 0600, made when missing; empty for keys/node.key below stateDirectory."),
    directory: key(optionalPath, '', 'Folder of key files, such as a mounted Secret, for provider "directory": one is current, all of them open. It is read again when it changes.'),
    current: key(v.pipe(text, v.regex(/^[A-Za-z0-9_.-]*$/, 'expected the name of a file')), '', 'Name of the file in keys.directory whose key signs and is wrapped to; empty for the last by name.'),
    command: key(list(text), [], 'Program (an absolute path) and arguments that provider "exec" runs for each question: a KMS.'),
    commandTimeout: key(duration, '10s', 'How long one run of keys.command may take; then it is killed with all of its process group.'),
    commandCache: key(duration, '5m', 'How long answers of keys.command (public keys, opened data keys) are used again, in memory only.'),
    recipients: key(list(v.pipe(text, v.regex(/^[0-9a-f]{64}$/, 'expected 64 hexadecimal digits'))), [], 'Public keys (hexadecimal X25519) to which the keys of lineages are wrapped when a checkpoint is made; empty for the one of this node. Without its own among them a node writes what it cannot read.'),
    trustedSigners: key(list(v.pipe(text, v.regex(/^[0-9a-f]{64}$/, 'expected 64 hexadecimal digits'))), [], 'Public signing keys (hexadecimal Ed25519) of other nodes whose checkpoints may be restored here.'),
  }),
  runtimes: group({
    runc: runtime('runc', ['/run/runc', '/run/containerd/runc/*']),
    crun: runtime('crun', ['/run/crun']),
  }),
  criu: group({
    binary: key(text, 'criu', 'Program of CRIU: a name on the PATH or an absolute path.'),
    timeout: key(duration, '10m', 'How long one run of CRIU may take at most; the budgets end it earlier.'),
  }),
  memory: group({
    path: key(choice(['auto', 'directory', 'page-server']), 'auto', 'How memory comes out of CRIU: over its page server (runc only), through a directory, or what was measured to be faster.'),
    preDump: key(choice(['auto', 'never']), 'never', 'Whether memory is read in rounds before the freeze, which then holds only what was written meanwhile. "auto": where the kernel tracks written pages and there is enough memory for it to pay; not for programs that clear their own soft-dirty bits (docs/CLI.md).'),
  }),
  rehearsal: key(choice(['auto', 'always', 'never']), 'auto', 'Whether a checkpoint is rebuilt in a scratch place before its container is stopped for it (docs/CLI.md). "auto": the first stop of each lineage, and again after anything that matters has changed; "always": every checkpoint, also of containers that are left running, and it fails where that is not possible.'),
  staging: group({
    size: key(size, defaultStaging(usableMemory()), 'Memory for pages between CRIU and the repository. Default: a quarter of the memory, at most 8 GiB.'),
  }),
  freezeBudget: key(budget, '60s', 'How long a container that goes on running afterwards may be frozen. Then it is thawed, and the checkpoint fails.'),
  stopBudget: key(budget, '10m', 'How long a container that is stopped by its checkpoint may be frozen until the commit. Then it is thawed, and the checkpoint fails.'),
  ghostLimit: key(size, '64M', 'Largest deleted but open file that is saved with a checkpoint.'),
  operations: group({
    parallel: key(integer(1, 64), 2, 'How many checkpoints and restores run at the same time; others wait.'),
    transfers: key(integer(1, 64), 2, 'How many exports and imports run at the same time, beside the others; further ones wait.'),
    stall: key(duration, '1m', 'How long the agent waits for a caller that does not read its answers, or sends no more of an archive. Then it ends the call.'),
    deadline: key(duration, '1h', 'How long an operation may take whose caller set no deadline.'),
  }),
  workers: key(integer(1, 64), Math.min(8, availableParallelism()), 'Threads that hash, compress and seal. Default: the number of processors, at most 8.'),
  log: group({
    level: key(choice(['debug', 'info', 'warn', 'error']), 'info', 'Least important events that are logged.'),
  }),
  metrics: group({
    listen: key(address, '127.0.0.1:9465', 'Loopback address of /metrics, /livez and /readyz; empty for none.'),
  }),
  testing: group({
    failpoint: key(
      text, '',
      'For tests only, NAME[:COUNT]=fail, =kill, =stop or "=sleep MS": what happens to an operation at a named step. '
      + 'Several between commas; @FILE: what the file says at each step.',
    ),
  }),
});

export type Config = v.InferOutput<typeof schema>;
