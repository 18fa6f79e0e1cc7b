import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import {
  descriptorOf,
  digestOf,
  indexOf,
  manifestOf,
  OCI_CONFIG,
  OCI_INDEX,
  OCI_LAYER,
  OCI_MANIFEST,
  RegistryFixture,
} from '../support/registry-fixture.js';

const EMPTY_JSON = 'application/vnd.oci.empty.v1+json';
const UNCOMPRESSED = 'application/vnd.oci.image.layer.v1.tar';
const NONDISTRIBUTABLE = 'application/vnd.oci.image.layer.nondistributable.v1.tar+gzip';

type Algorithm = 'sha256' | 'sha512';

interface PushedManifest {
  readonly data: Buffer;
  readonly type: string;
  readonly tag?: string;
  /** What it refers to as its subject, and how the referrers of that list it. */
  readonly referrer?: { readonly subject: string; readonly artifactType?: string };
}

/** One kind of content: what is pushed, in this order, and with what digests. */
interface Content {
  readonly blobs: readonly Buffer[];
  readonly manifests: readonly PushedManifest[];
  readonly algorithm?: Algorithm;
}

const config = (): Buffer =>
  Buffer.from(JSON.stringify({ os: 'linux', architecture: 'amd64', unique: randomBytes(8).toString('hex') }));

function image(more: Partial<Record<string, unknown>> = {}): { blobs: Buffer[]; data: Buffer; type: string } {
  const blobs = [config(), randomBytes(300), randomBytes(300)];
  const [first, ...layers] = blobs;
  return { blobs, data: manifestOf(first!, layers, more), type: OCI_MANIFEST };
}

function index(children: readonly Buffer[], more: Partial<Record<string, unknown>> = {}): PushedManifest {
  return { data: indexOf(children, more), type: OCI_INDEX };
}

const descriptor = (data: Buffer, mediaType: string, algorithm: Algorithm = 'sha256') => ({
  ...descriptorOf(data, mediaType),
  digest: digestOf(data, algorithm),
});

const subjectOf = (digest: string) => ({ subject: { mediaType: OCI_MANIFEST, digest, size: 1024 } });

/** Every kind of content that the specifications know, as the groups of the OCI conformance suite have it. */
const KINDS: Readonly<Record<string, () => Content>> = {
  image: () => {
    const { blobs, ...one } = image();
    return { blobs, manifests: [{ ...one, tag: 'image' }] };
  },
  'image with uncompressed layers': () => {
    const blobs = [config(), randomBytes(100)] as const;
    const data = manifestOf(blobs[0], [], { layers: [descriptor(blobs[1], UNCOMPRESSED)] });
    return { blobs, manifests: [{ data, type: OCI_MANIFEST, tag: 'uncompressed' }] };
  },
  'image with a large manifest': () => {
    const annotations = Object.fromEntries(Array.from({ length: 390 }, (_, at) => [`a-${at}`, 'A'.repeat(10_000)]));
    const { blobs, ...one } = image({ annotations });
    return { blobs, manifests: [{ ...one, tag: 'large' }] };
  },
  index: () => {
    const [one, two] = [image(), image()];
    return {
      blobs: [...one.blobs, ...two.blobs],
      manifests: [one, two, { ...index([one.data, two.data]), tag: 'index' }],
    };
  },
  'nested index': () => {
    const one = image();
    const inner = index([one.data]);
    return { blobs: one.blobs, manifests: [one, inner, { ...index([inner.data, one.data]), tag: 'nested' }] };
  },
  'empty index': () => ({ blobs: [], manifests: [{ ...index([]), tag: 'empty' }] }),
  artifact: () => {
    const blobs = [Buffer.from('{}'), randomBytes(100)] as const;
    const data = manifestOf(blobs[0], [blobs[1]], {
      config: descriptor(blobs[0], EMPTY_JSON),
      artifactType: 'application/vnd.example',
    });
    return { blobs, manifests: [{ data, type: OCI_MANIFEST, tag: 'artifact' }] };
  },
  'artifact index': () => {
    const one = image({ artifactType: 'application/vnd.example.part' });
    return {
      blobs: one.blobs,
      manifests: [one, { ...index([one.data], { artifactType: 'application/vnd.example.whole' }), tag: 'artifacts' }],
    };
  },
  'artifact without layers': () => {
    const blob = Buffer.from('{}');
    const data = manifestOf(blob, [], {
      config: descriptor(blob, EMPTY_JSON),
      artifactType: 'application/vnd.example',
      layers: [descriptor(blob, EMPTY_JSON)],
    });
    return { blobs: [blob], manifests: [{ data, type: OCI_MANIFEST, tag: 'no-layers' }] };
  },
  'artifacts with a subject': () => {
    const base = image();
    const subject = digestOf(base.data);
    const [typed, untyped] = [image({ ...subjectOf(subject), artifactType: 'a/b' }), image(subjectOf(subject))];
    return {
      blobs: [...base.blobs, ...typed.blobs, ...untyped.blobs],
      manifests: [
        { ...base, tag: 'subject' },
        { ...typed, referrer: { subject, artifactType: 'a/b' } },
        { ...untyped, referrer: { subject, artifactType: OCI_CONFIG } },
      ],
    };
  },
  'index with a subject': () => {
    const base = image();
    const subject = digestOf(base.data);
    const list = index([base.data], { ...subjectOf(subject), annotations: { a: 'b' } });
    return { blobs: base.blobs, manifests: [base, { ...list, tag: 'list', referrer: { subject } }] };
  },
  'missing subject': () => {
    const subject = digestOf(randomBytes(10));
    const one = image({ ...subjectOf(subject), artifactType: 'a/b' });
    return { blobs: one.blobs, manifests: [{ ...one, tag: 'orphan', referrer: { subject, artifactType: 'a/b' } }] };
  },
  'data field': () => {
    const blobs = [Buffer.from('{}'), Buffer.from('inline')] as const;
    const inline = (data: Buffer, type: string) => ({ ...descriptor(data, type), data: data.toString('base64') });
    const data = manifestOf(blobs[0], [], {
      config: inline(blobs[0], EMPTY_JSON),
      layers: [inline(blobs[1], OCI_LAYER)],
    });
    return { blobs, manifests: [{ data, type: OCI_MANIFEST, tag: 'data' }] };
  },
  'non-distributable layers, which are not pushed': () => {
    const blob = config();
    const layer = descriptor(randomBytes(100), NONDISTRIBUTABLE);
    const data = manifestOf(blob, [], { layers: [layer, { ...layer, urls: ['https://store.example.com/blob'] }] });
    return { blobs: [blob], manifests: [{ data, type: OCI_MANIFEST, tag: 'nondistributable' }] };
  },
  'custom fields': () => {
    const one = image({ 'org.example': { nested: [1, null, true] } });
    return {
      blobs: one.blobs,
      manifests: [one, { ...index([one.data], { extra: 'x', manifests: [] }), tag: 'custom' }],
    };
  },
  'no layers': () => {
    const blob = config();
    return { blobs: [blob], manifests: [{ data: manifestOf(blob, []), type: OCI_MANIFEST, tag: 'none' }] };
  },
  'sparse, where the configuration says so': () => {
    const whole = image();
    const { blobs, ...lacking } = image();
    return {
      blobs: [...whole.blobs, ...blobs.slice(0, 2)],
      manifests: [{ ...lacking, tag: 'sparse' }, whole, { ...index([whole.data, image().data]), tag: 'sparse-index' }],
    };
  },
  'SHA-512': () => {
    const [blob, layer] = [config(), randomBytes(100)];
    const data = manifestOf(blob, [], {
      config: descriptor(blob, OCI_CONFIG, 'sha512'),
      layers: [descriptor(layer, OCI_LAYER, 'sha512')],
    });
    const list = indexOf([], { manifests: [descriptor(data, OCI_MANIFEST, 'sha512')] });
    return {
      algorithm: 'sha512',
      blobs: [blob, layer],
      manifests: [
        { data, type: OCI_MANIFEST },
        { data: list, type: OCI_INDEX, tag: 'sha512' },
      ],
    };
  },
};

describe('every kind of content, from push to delete', () => {
  let registry: RegistryFixture;
  before(async () => {
    registry = await RegistryFixture.start({ validation: { indexes: 'none', images: 'none' } });
  });
  after(async () => {
    assert.deepEqual(registry.faults, []);
    await registry.stop();
  });

  for (const [position, [name, make]] of Object.entries(KINDS).entries())
    test(name, async () => {
      const { blobs, manifests, algorithm = 'sha256' } = make();
      const base = `/v2/kinds/${position}`;
      const digest = (data: Buffer) => digestOf(data, algorithm);
      const status = async (method: string, path: string) => (await registry.call(method, base + path)).status;

      // Push. A digest of another algorithm gets its tag as a parameter.
      for (const blob of blobs) {
        const answer = await registry.call('POST', `${base}/blobs/uploads/?digest=${digest(blob)}`, { body: blob });
        assert.equal(answer.status, 201);
        assert.equal(answer.headers.location, `${base}/blobs/${digest(blob)}`);
      }
      for (const { data, type, tag, referrer } of manifests) {
        const byTag = tag !== undefined && algorithm === 'sha256';
        const target = byTag ? tag : `${digest(data)}${tag === undefined ? '' : `?tag=${tag}`}`;
        const answer = await registry.pushManifest(`kinds/${position}`, target, data, type);
        assert.equal(answer.status, 201, String(answer.body));
        assert.equal(answer.headers['docker-content-digest'], digest(data));
        assert.equal(answer.headers['oci-tag'], byTag ? undefined : tag);
        assert.equal(answer.headers['oci-subject'], referrer?.subject);
      }

      // List.
      const tags = manifests.flatMap(({ tag }) => tag ?? []).sort();
      assert.deepEqual((await registry.call('GET', `${base}/tags/list`)).json(), { name: `kinds/${position}`, tags });

      // Head and pull.
      for (const { data, type, tag } of manifests)
        for (const reference of [digest(data), ...(tag === undefined ? [] : [tag])])
          for (const method of ['HEAD', 'GET']) {
            const { status, headers, body } = await registry.call(method, `${base}/manifests/${reference}`);
            assert.equal(status, 200);
            assert.equal(headers['content-type'], type);
            assert.equal(headers['content-length'], String(data.length));
            assert.equal(headers['docker-content-digest'], digest(data));
            assert.ok(body.equals(method === 'GET' ? data : Buffer.alloc(0)));
          }
      for (const blob of blobs)
        for (const method of ['HEAD', 'GET']) {
          const { status, headers, body } = await registry.call(method, `${base}/blobs/${digest(blob)}`);
          assert.equal(status, 200);
          assert.equal(headers['content-length'], String(blob.length));
          assert.equal(headers['docker-content-digest'], digest(blob));
          assert.ok(body.equals(method === 'GET' ? blob : Buffer.alloc(0)));
        }

      // Referrers.
      for (const { data, type, referrer } of manifests) {
        if (!referrer) continue;
        const { subject, artifactType } = referrer;
        for (const query of ['', `?artifactType=${encodeURIComponent(artifactType ?? '')}`]) {
          const answer = await registry.call('GET', `${base}/referrers/${subject}${query}`);
          const listed = (answer.json() as { manifests: Array<{ digest: string }> }).manifests;
          const annotations = JSON.parse(data.toString()).annotations as unknown;
          assert.deepEqual(
            listed.find(entry => entry.digest === digest(data)),
            {
              ...descriptor(data, type),
              ...(artifactType && { artifactType }),
              ...(annotations ? { annotations } : {}),
            },
          );
        }
      }

      // Delete, which is seen at once.
      for (const tag of tags) {
        assert.equal(await status('DELETE', `/manifests/${tag}`), 202);
        assert.equal(await status('HEAD', `/manifests/${tag}`), 404);
      }
      for (const { data } of [...manifests].reverse()) {
        assert.equal(await status('DELETE', `/manifests/${digest(data)}`), 202);
        assert.equal(await status('HEAD', `/manifests/${digest(data)}`), 404);
      }
      for (const blob of new Set(blobs)) {
        assert.equal(await status('DELETE', `/blobs/${digest(blob)}`), 202);
        assert.equal(await status('HEAD', `/blobs/${digest(blob)}`), 404);
      }
    });

  test('an image with a bad digest', async () => {
    const one = image();
    for (const blob of one.blobs) await registry.pushBlob('kinds/bad', blob);
    for (const digest of [digestOf(randomBytes(3)), 'sha256:baddigeststring', digestOf(randomBytes(3), 'sha512')]) {
      const answer = await registry.pushManifest('kinds/bad', digest, one.data);
      assert.deepEqual([answer.status, answer.code], [400, 'DIGEST_INVALID']);
    }
    assert.deepEqual((await registry.call('GET', '/v2/kinds/bad/tags/list')).json(), { name: 'kinds/bad', tags: [] });
  });
});

/** distribution-spec, "Determining Support". */
test('the base says which API this is', async () => {
  const registry = await RegistryFixture.start();
  try {
    for (const path of ['/v2/', '/v2']) {
      const answer = await registry.call('GET', path);
      assert.equal(answer.status, 200);
      assert.deepEqual(answer.json(), {});
      assert.equal(answer.headers['content-type'], 'application/json');
      assert.equal(answer.headers['docker-distribution-api-version'], 'registry/2.0');
    }
    assert.equal((await registry.call('GET', '/v2/', { user: 'nobody' })).status, 401);
    const refused = await registry.call('POST', '/v2/');
    assert.deepEqual([refused.status, refused.code, refused.headers.allow], [405, 'UNSUPPORTED', 'GET, HEAD']);
  } finally {
    await registry.stop();
  }
});
