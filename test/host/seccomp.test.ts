/** Programs made by libseccomp hold for every architecture that the kernel runs: tried with real calls under a real filter. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { isStasisError } from '../../src/core/errors.ts';
import { seccompProgram } from '../../src/runtime/index.ts';

const base = mkdtempSync('/tmp/seccomp-');
after(() => rmSync(base, { recursive: true }));

/** Loads the program, and calls keyctl natively, as x32, and in an i386 program by int 0x80. Prints one word for each. */
const caller = `
my ($program, $elf) = @ARGV; open(my $f, '<', $program) or die; binmode $f; local $/; my $bpf = <$f>;
my $code = pack('H*', 'b82001000031dbb9fdffffff31d2cd8085c0b3077902b309b801000000cd80');
my $header = pack('C16 S S L L L L L S S S S S S', 0x7f, 0x45, 0x4c, 0x46, 1, 1, 1, (0) x 9, 2, 3, 1, 0x08048054, 52, 0, 0, 52, 32, 1, 40, 0, 0);
open(my $e, '>', $elf) or die; binmode $e; print $e $header . pack('L8', 1, 0, 0x08048000, 0x08048000, 84 + length $code, 84 + length $code, 5, 0x1000) . $code; close $e; chmod 0755, $elf;
my $fprog = pack('S x6 p', length($bpf) / 8, $bpf);
syscall(157, 38, 1, 0, 0, 0) == 0 or die "no_new_privs $!"; syscall(157, 22, 2, $fprog) == 0 or die "seccomp $!";
my $says = sub { $_[0] < 0 ? $! + 0 : 0 };
print $says->(syscall(250, 0, -3, 0)), ' ', $says->(syscall(250 | 0x40000000, 0, -3, 0)), ' ';
$| = 1; print ''; my $status = system($elf); print $status >> 8 == 9 ? 'refused' : $status >> 8 == 7 ? 'allowed' : 'cannot run';
`;

function outcome(architectures: readonly string[] | undefined, syscalls: readonly unknown[], defaultAction = 'SCMP_ACT_ALLOW'): string {
  const program = seccompProgram({ linux: { seccomp: { defaultAction, ...(architectures === undefined ? {} : { architectures }), syscalls } } }, join(base, 'scratch'));
  assert.ok(program !== undefined);
  const path = join(base, 'program');
  writeFileSync(path, program);
  assert.deepEqual(readdirSync(base).filter((name) => name === 'scratch'), [], 'the scratch file is gone');
  return execFileSync('perl', ['-e', caller, path, join(base, 'elf')], { encoding: 'utf8' });
}

const keyctl = [{ names: ['keyctl', 'a_call_of_the_future'], action: 'SCMP_ACT_ERRNO', errnoRet: 99 }];

void describe('seccomp programs of a bundle', { skip: process.arch === 'x64' ? false : 'the calls are those of x86' }, () => {
  void it('forbid a call on all architectures of the profile', () => {
    assert.match(outcome(['SCMP_ARCH_X86_64', 'SCMP_ARCH_X86', 'SCMP_ARCH_X32'], keyctl), /^99 99 (?:refused|cannot run)$/);
  });

  void it('look at arguments', () => {
    const of = (value: number): string => outcome(['SCMP_ARCH_X86_64', 'SCMP_ARCH_X86', 'SCMP_ARCH_X32'], [{ ...keyctl[0], args: [{ index: 0, value, op: 'SCMP_CMP_EQ' }] }]).split(' ')[0] ?? '';
    assert.equal(of(0), '99');
    assert.notEqual(of(7), '99');
  });

  void it('what is not understood is refused, with what it is', () => {
    const refused = (spec: unknown, message: RegExp): void => {
      assert.throws(() => seccompProgram({ linux: { seccomp: spec } }, join(base, 'scratch')), (error) => isStasisError(error, 'RESTORE_INCOMPATIBLE') && message.test(error.message));
    };
    refused({ defaultAction: 'SCMP_ACT_PRAY' }, /the action SCMP_ACT_PRAY/);
    refused({ defaultAction: 'SCMP_ACT_ALLOW', architectures: ['SCMP_ARCH_PDP11'] }, /the architecture pdp11/);
    refused({ defaultAction: 'SCMP_ACT_ALLOW', syscalls: [{ names: ['read'], action: 'SCMP_ACT_ERRNO', args: [{ index: 9, value: 1, op: 'SCMP_CMP_EQ' }] }] }, /argument 9/);
    refused({ defaultAction: 'SCMP_ACT_ALLOW', syscalls: [{ names: ['read'], action: 'SCMP_ACT_ERRNO', args: [{ index: 0, value: 2 ** 60, op: 'SCMP_CMP_EQ' }] }] }, /does not hold exactly/);
    assert.equal(seccompProgram({ linux: {} }, join(base, 'scratch')), undefined);
  });
});
