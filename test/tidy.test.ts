/** What the linter cannot see: layers by what is really imported, dead files, words and addresses that must not be committed. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { describe, it } from 'node:test';
import { repositoryRoot } from './config/repository-root.ts';

const root = repositoryRoot();

/** Rooms below src, and what each may import beside itself. docs/DESIGN.md draws it. */
const middle = ['runtime', 'gpu', 'image', 'repository', 'kube', 'rpc', 'host', 'telemetry', 'config'];
const top = ['agent', 'coordinator', 'cli', 'shim'];
const mayImport: Readonly<Record<string, readonly string[]>> = {
  core: [], host: ['core'],
  ...Object.fromEntries(middle.filter((room) => room !== 'host').map((room) => [room, ['host', 'core']])),
  ...Object.fromEntries(top.map((room) => [room, [...middle, 'core']])),
  bin: [...top, ...middle, 'core'],
};
const imageMayImport = /^src\/repository\/(types|stage\/port)\.ts$/;

/** Packages and the one folder that knows each. */
const owners: Readonly<Record<string, string>> = {
  '@grpc/grpc-js': 'src/rpc/', '@grpc/proto-loader': 'src/rpc/', execa: 'src/host/', koffi: 'src/host/', pino: 'src/telemetry/', yaml: 'src/config/',
  commander: 'src/cli/', 'libsodium-wrappers': 'src/repository/crypto/', 'sodium-native': 'src/repository/crypto/',
  '@aws-sdk/client-s3': 'src/repository/store/s3/',
};

function filesBelow(directory: string): string[] {
  return readdirSync(join(root, directory), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile()).map((entry) => relative(root, join(entry.parentPath, entry.name))).sort();
}

const typescript = [...filesBelow('src'), ...filesBelow('test')].filter((file) => file.endsWith('.ts') && !file.endsWith('.d.ts'));
const text = new Map(typescript.map((file) => [file, readFileSync(join(root, file), 'utf8')]));

interface Import {
  readonly from: string;
  /** A file of ours, or a package or node: module. */
  readonly to: string;
}

/** Static imports, re-exports, and the entry files of workers and programs. */
function importsOf(file: string): Import[] {
  const source = text.get(file) ?? '';
  const found = [
    ...source.matchAll(/^(?:import|export)\b(?:[^;'"]*?\bfrom)?\s*['"]([^'"\n]+)['"]/gm), ...source.matchAll(/\bimport\(\s*['"]([^'"]+)['"]/g),
    ...Array.from(source.matchAll(/new URL\(\s*['"](?:\.\/)?([\w./-]+\.js)['"],\s*import\.meta\.url/g), ([all, path = '']) => [all, path.startsWith('.') ? path : `./${path}`]),
  ];
  return found.map(([, specifier = '']) => ({
    from: file, to: specifier.startsWith('.') ? relative(root, join(root, dirname(file), specifier)).replace(/\.js$/, '.ts') : specifier,
  }));
}

const imports = typescript.flatMap(importsOf);
const inSource = imports.filter(({ from }) => from.startsWith('src/'));

function roomOf(file: string): string {
  return file.split('/')[1] ?? '';
}

void describe('layers', () => {
  void it('every relative import names a file', () => {
    assert.deepEqual(imports.filter(({ to }) => /^(src|test)\//.test(to) && !existsSync(join(root, to))), []);
  });

  void it('a room imports only rooms below it', () => {
    const upward = inSource.filter(({ from, to }) => {
      if (!to.startsWith('src/') || roomOf(from) === roomOf(to)) return false;
      if (roomOf(from) === 'image' && imageMayImport.test(to)) return false;
      return !(mayImport[roomOf(from)] ?? []).includes(roomOf(to));
    });
    assert.deepEqual(upward, []);
  });

  void it('every room is in the table', () => {
    assert.deepEqual(readdirSync(join(root, 'src')).filter((room) => mayImport[room] === undefined), []);
  });

  void it('src does not import test', () => {
    assert.deepEqual(inSource.filter(({ to }) => to.startsWith('test/')), []);
  });

  void it('a package is imported where it belongs', () => {
    const strangers = inSource.filter(({ from, to }) => {
      const owner = Object.entries(owners).find(([name]) => to === name || to.startsWith(`${name}/`))?.[1];
      return owner !== undefined && !from.startsWith(owner);
    });
    assert.deepEqual(strangers, []);
  });
});

void describe('files', () => {
  void it('every file of src can be reached from a program', () => {
    const reached = new Set<string>();
    const visit = (file: string): void => {
      if (reached.has(file)) return;
      reached.add(file);
      for (const { to } of importsOf(file)) if (text.has(to)) visit(to);
    };
    for (const file of typescript) if (file.startsWith('src/bin/')) visit(file);
    assert.deepEqual(typescript.filter((file) => file.startsWith('src/') && !reached.has(file)), []);
  });

  void it('every file of test is a test, a program or imported by one', () => {
    const programs = /\.test\.ts$|^test\/(bench|demo|golden|zdtm)\/[a-z0-9-]+\.ts$/;
    const used = new Set([...imports.map(({ to }) => to), 'test/support/leaks.ts']);
    assert.deepEqual(typescript.filter((file) => file.startsWith('test/') && !programs.test(file) && !used.has(file)), []);
  });

  void it('names are kebab-case', () => {
    const names = typescript.flatMap((file) => file.split('/')).filter((name) => !/^[a-z0-9-]+(\.test)?(\.ts)?$/.test(name));
    assert.deepEqual(names, []);
  });

  void it('no file is longer than 400 lines', () => {
    const long = [...typescript, ...filesBelow('scripts'), ...filesBelow('proto')].filter((file) => readFileSync(join(root, file), 'utf8').split('\n').length > 400 && !/^proto\/(grpc|stasis)\//.test(file));
    assert.deepEqual(long, []);
  });
});

void describe('words', () => {
  const committed = [
    ...['src', 'test', 'scripts', 'deploy', 'proto', 'docs', '.ci'].filter((directory) => existsSync(join(root, directory))).flatMap(filesBelow),
    ...readdirSync(root).filter((name) => /\.(json|md)$|^\.oxlintrc|^\.npmrc$|^\.gitignore$/.test(name)),
  ].filter((file) => !file.startsWith('test/golden/v'));

  /** With a class of one letter each, because this file is looked at, too. */
  const banned: readonly (readonly [string, RegExp])[] = [
    ['work that is put off', /\b(T[O]DO|F[I]XME|X[X]X|H[A]CK)\b/],
    ['a path of one machine', /(\/w[o]rk\/|\/h[o]me\/\w|\/U[s]ers\/)/],
    ['the host of a registry', /(registry\.n[p]mjs|(deb|snapshot)\.d[e]bian|d[o]cker\.io\/)/],
  ];
  for (const [what, pattern] of banned) {
    void it(`nothing that is committed holds ${what}`, () => {
      const found = committed.flatMap((file) => readFileSync(join(root, file), 'utf8').split('\n')
        .flatMap((line, index) => (pattern.test(line) ? [`${file}:${index + 1}: ${line.trim().slice(0, 120)}`] : [])));
      assert.deepEqual(found, []);
    });
  }

  void it('documents that are named exist', () => {
    const missing = committed.flatMap((file) => [...readFileSync(join(root, file), 'utf8').matchAll(/\bdocs\/[\w/.-]+\.md\b/g)]
      .filter(([path]) => !existsSync(join(root, path))).map(([path]) => `${file}: ${path}`));
    assert.deepEqual(missing, []);
  });
});
