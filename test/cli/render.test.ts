import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Io } from '../../src/cli/io.ts';
import { jsonDocument, jsonLine } from '../../src/cli/render/json.ts';
import { barLine, progressView } from '../../src/cli/render/progress.ts';
import { pairs, printable, table } from '../../src/cli/render/text.ts';
import { progress } from '../rpc/scripted-agent.ts';

interface Recorded extends Io {
  nowMs: number;
  readonly written: string[];
}

function recorded(terminal: boolean, columns = 120): Recorded {
  const written: string[] = [];
  const io: Recorded = {
    nowMs: 0, written, terminal, colour: false, columns: () => columns,
    out: (text) => void written.push(`out:${text}`), talk: (text) => void written.push(`talk:${text}`), raw: (text) => void written.push(`raw:${text}`),
    clock: { now: () => io.nowMs, monotonic: () => io.nowMs, sleep: async () => undefined },
    onInterrupt: () => () => undefined,
  };
  return io;
}

void test('on a terminal: a bar that is drawn ten times a second at most, and at every step', () => {
  const io = recorded(true);
  const view = progressView(io, 'web', false);
  for (let i = 0; i <= 1000; i += 10) {
    io.nowMs = i;
    view.update(progress({ stepNumber: 3, bytesDone: i * 1024 ** 2 }));
  }
  assert.equal(io.written.length, 11);
  view.update(progress({ stepNumber: 4 }));
  assert.equal(io.written.length, 12);
  assert.ok(io.written.every((text) => text.startsWith('raw:\r\u001b[2Kcheckpoint web  ')));
  view.end();
  view.end();
  assert.deepEqual(io.written.slice(12), ['raw:\r\u001b[2K']);
});

void test('elsewhere: a line every five seconds, none for what is quick', () => {
  const io = recorded(false);
  const view = progressView(io, 'web', false);
  for (let i = 0; i <= 12_000; i += 100) {
    io.nowMs = i;
    view.update(progress());
  }
  view.end();
  assert.deepEqual(io.written, Array.from({ length: 2 }, () => 'talk:checkpoint web: step 3/7 dump, 512 MiB of 2.00 GiB, 400 MiB/s, 4.00 s left, 1.30 s, frozen'));
});

void test('with --json: every message on stdout', () => {
  const io = recorded(true);
  const view = progressView(io, 'web', true);
  view.update(progress());
  view.update(progress());
  assert.equal(io.written.length, 2);
  assert.ok(io.written[0]?.startsWith('out:{"type":"progress","operation_id":"op-1"'));
});

void test('the bar never runs into the next line', () => {
  for (const width of [0, 1, 20, 79, 200]) assert.ok(Array.from(barLine(progress(), 'w'.repeat(100), width)).length <= width);
  assert.match(barLine(progress(), 'web', 120), /█{6}░{18} {2}25 %/);
  assert.match(barLine(progress({ bytesDone: 3 * 1024 ** 3 }), 'web', 120), /█{24} 100 %/);
  assert.doesNotMatch(barLine(progress({ bytesTotal: 0, bytesDone: 0, frozen: false }), 'web', 120), /%|frozen|left/);
  assert.match(barLine(progress({ stepNumber: 0, step: 'waiting' }), 'web', 120), / {2}waiting {2}/);
});

void test('JSON and text are shown by a terminal, not obeyed', () => {
  const hostile = Array.from({ length: 0x11_0000 }, (_, code) => code).filter((code) => /^[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]$/u.test(String.fromCodePoint(code)));
  for (const code of [0x1b, 0x7f, 0x9b, 0x61c, 0x200e, 0x202e, 0x2028, 0x2066, 0xfeff, 0xe0041]) assert.ok(hostile.includes(code), code.toString(16));
  const value = { name: hostile.map((code) => String.fromCodePoint(code)).join('é😀 ') };
  for (const json of [jsonLine(value), jsonDocument(value).replaceAll('\n', '')]) {
    assert.doesNotMatch(json, /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u);
    assert.match(json, /\\u009b/);
    assert.ok(json.includes('é😀'), 'the rest stays as it is');
    assert.deepEqual(JSON.parse(json), value, 'the same for a parser');
  }
  assert.doesNotMatch(printable(value.name), /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u);
});

void test('tables and pairs', () => {
  assert.equal(table([{ title: 'A', value: (row: string) => row }, { title: 'LENGTH', value: (row) => String(row.length), right: true }], ['x', 'yyy']), 'A    LENGTH\nx         1\nyyy       3');
  assert.equal(pairs([['One', '1'], ['Nothing', ''], ['Absent', undefined], ['Three', '3']]), 'One:   1\nThree: 3');
  assert.equal(printable('a\u001b[31m\n\u0007é'), 'a\\x1b[31m\\x0a\\x07é');
  assert.equal(jsonLine({ type: 'x', frozenMs: 1, bytes: { rawBytes: 2 }, list: [{ aB: 1 }] }), '{"type":"x","frozen_ms":1,"bytes":{"raw_bytes":2},"list":[{"a_b":1}]}');
});
