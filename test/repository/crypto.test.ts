import assert from 'node:assert/strict';
import { createHmac, randomBytes } from 'node:crypto';
import { describe, it } from 'node:test';
import { systemAead } from '../../src/host/libcrypto.ts';
import { nodeAead, withBulkCipher } from '../../src/repository/crypto/bulk.ts';
import { hchacha20 } from '../../src/repository/crypto/hchacha20.ts';
import { chunkId, deriveLineageKeys } from '../../src/repository/crypto/lineage-keys.ts';
import { NONCE_BYTES } from '../../src/repository/crypto/port.ts';
import type { Sodium } from '../../src/repository/crypto/port.ts';
import { loadSodium } from '../../src/repository/crypto/sodium.ts';
import type { SodiumChoice } from '../../src/repository/crypto/sodium.ts';

/** `bulk` with the system's libcrypto, and `node` without it. */
const choices = ['bulk', 'node', 'sodium-native', 'libsodium-wrappers'] as const satisfies readonly (SodiumChoice | 'node')[];

async function load(choice: SodiumChoice | 'node'): Promise<Sodium> {
  const sodium = choice === 'node' ? withBulkCipher(await loadSodium('sodium-native'), nodeAead) : await loadSodium(choice);
  assert.ok(sodium !== undefined);
  return sodium;
}

const lengths = [0, 1, 15, 16, 63, 64, 65, 4096, 65_535, 65_536, 65_537, 300_001];

function seal(sodium: Sodium, nonce: Buffer, message: Buffer, associated: Buffer, key: Buffer): Buffer {
  const out = Buffer.alloc(message.length + 40);
  sodium.seal(out, nonce, message, associated, key);
  return out;
}

void it('the system has a libcrypto, and its cipher is the one that is used', () => {
  assert.notEqual(systemAead, undefined);
});

void describe('every implementation seals to the same bytes, and each opens what the others sealed', () => {
  for (const ours of choices) {
    for (const theirs of choices) {
      void it(`${ours} and ${theirs}`, async () => {
        const [a, b] = await Promise.all([load(ours), load(theirs)]);
        for (const length of lengths) {
          const [key, nonce, message, associated] = [randomBytes(32), randomBytes(NONCE_BYTES), randomBytes(length), randomBytes(length % 70)];
          const sealed = seal(a, nonce, message, associated, key);
          assert.ok(sealed.equals(seal(b, nonce, message, associated, key)), `${length} bytes`);
          const opened = Buffer.alloc(length);
          assert.equal(b.open(opened, sealed, associated, key), true);
          assert.ok(opened.equals(message));
        }
      });
    }
  }
});

void describe('keys', () => {
  for (const choice of choices) {
    void it(`${choice}: anything wrong does not open`, async () => {
      const sodium = await load(choice);
      const [key, message, associated] = [randomBytes(32), randomBytes(1000), Buffer.from('associated')];
      const sealed = seal(sodium, randomBytes(NONCE_BYTES), message, associated, key);
      const out = Buffer.alloc(1000);
      for (const at of [0, 23, 24, 500, 1023, 1024, 1039]) {
        const bad = Buffer.from(sealed);
        bad[at] = (bad[at] ?? 0) ^ 1;
        assert.equal(sodium.open(out, bad, associated, key), false, `byte ${at}`);
      }
      assert.equal(sodium.open(out, sealed, Buffer.from('other'), key), false);
      assert.equal(sodium.open(out, sealed, associated, randomBytes(32)), false);
      assert.equal(sodium.open(Buffer.alloc(999), sealed.subarray(0, 1039), associated, key), false);
      assert.equal(sodium.open(Buffer.alloc(0), sealed.subarray(0, 20), associated, key), false);
    });

    void it(`${choice}: wrapping, signing and deriving agree with libsodium-wrappers`, async () => {
      const [sodium, reference] = await Promise.all([load(choice), load('libsodium-wrappers')]);
      const [secret, seed, dataKey] = [randomBytes(32), randomBytes(32), randomBytes(32)];
      const [box, sign] = [sodium.boxPair(secret), sodium.signPair(seed)];
      assert.deepEqual(Buffer.from(box.publicKey), Buffer.from(reference.boxPair(secret).publicKey));
      assert.deepEqual(Buffer.from(sign.publicKey), Buffer.from(reference.signPair(seed).publicKey));
      assert.deepEqual(reference.boxSealOpen(sodium.boxSeal(dataKey, box.publicKey), box), dataKey);
      assert.deepEqual(sodium.boxSealOpen(reference.boxSeal(dataKey, box.publicKey), box), dataKey);
      assert.equal(sodium.boxSealOpen(reference.boxSeal(dataKey, box.publicKey), sodium.boxPair()), undefined);
      const message = randomBytes(100);
      assert.equal(reference.verify(sodium.sign(message, sign.secretKey), message, sign.publicKey), true);
      assert.equal(sodium.verify(reference.sign(message, sign.secretKey), message, sign.publicKey), true);
      assert.equal(sodium.verify(reference.sign(message, sign.secretKey), randomBytes(100), sign.publicKey), false);
      const lineage = '00112233445566778899aabbccddeeff' as Parameters<typeof deriveLineageKeys>[1];
      const keys = deriveLineageKeys(sodium, lineage, dataKey);
      assert.deepEqual(keys, deriveLineageKeys(reference, lineage, dataKey));
      assert.equal(new Set([keys.idKey, keys.chunkKey, keys.manifestKey, keys.check].map((key) => Buffer.from(key).toString('hex'))).size, 4);
    });
  }

  void it('a chunk id is HMAC-SHA-256', () => {
    const [key, data] = [randomBytes(32), randomBytes(100)];
    assert.deepEqual(chunkId(key, data), createHmac('sha256', key).update(data).digest());
  });

  void it('HChaCha20 gives the published answer', () => {
    const key = Buffer.from('000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f', 'hex');
    const subkey = hchacha20(key, Buffer.from('000000090000004a0000000031415927', 'hex'));
    assert.equal(subkey.toString('hex'), '82413b4227b27bfed30e42508a877d73a0f9e4d58a74a853c12ec41326d3ecdc');
  });
});
