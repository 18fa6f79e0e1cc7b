import { createHash } from 'node:crypto';
import { gzipSync } from 'node:zlib';
import { TarWriter } from '../../src/tar.js';

/** A file of an archive, or a link. */
export type Member = readonly [name: string, content: Buffer | string | { readonly link: string }];

export async function tarOf(members: readonly Member[]): Promise<Buffer> {
  const chunks: Buffer[] = [];
  const writer = new TarWriter(async chunk => void chunks.push(Buffer.from(chunk)));
  for (const [name, content] of members) {
    const isLink = typeof content === 'object' && 'link' in content;
    const data = isLink ? Buffer.alloc(0) : Buffer.from(content);
    const at = chunks.length;
    await writer.add(name, data.length, new Date(0), once(data));
    if (isLink) makeLink(chunks[at]!, content.link);
  }
  await writer.end();
  return Buffer.concat(chunks);
}

async function* once(data: Buffer): AsyncGenerator<Buffer> {
  yield data;
}

function makeLink(header: Buffer, target: string): void {
  header.write('2', 156, 'latin1');
  header.write(target, 157, 100, 'latin1');
  header.fill(' ', 148, 156);
  const sum = header.reduce((sum, byte) => sum + byte, 0);
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
}

export function hexOf(data: Buffer): string {
  return createHash('sha256').update(data).digest('hex');
}

/** An image as Docker knows it: its configuration names the layers as they are unpacked. */
export function dockerImage(
  layers: readonly Buffer[],
  more: object = {},
): { config: Buffer; layers: readonly Buffer[] } {
  const rootfs = { type: 'layers', diff_ids: layers.map(layer => `sha256:${hexOf(layer)}`) };
  return { config: Buffer.from(JSON.stringify({ os: 'linux', architecture: 'amd64', rootfs, ...more })), layers };
}

/** What `docker save` of versions before 25 writes: the list comes last, and layers that are there already are links. */
export function savedByOldDocker(
  images: ReadonlyArray<{ tags: readonly string[] | null; image: ReturnType<typeof dockerImage> }>,
): Member[] {
  const members: Member[] = [];
  const first = new Map<string, string>();
  const list = images.map(({ tags, image: { config, layers } }, number) => {
    const paths = layers.map((layer, at) => {
      const folder = hexOf(Buffer.from(`${number} ${at}`));
      const hex = hexOf(layer);
      const before = first.get(hex);
      members.push([`${folder}/VERSION`, '1.0'], [`${folder}/json`, '{}']);
      members.push([`${folder}/layer.tar`, before === undefined ? layer : { link: `../${before}/layer.tar` }]);
      first.set(hex, before ?? folder);
      return `${folder}/layer.tar`;
    });
    members.push([`${hexOf(config)}.json`, config]);
    return { Config: `${hexOf(config)}.json`, RepoTags: tags, Layers: paths };
  });
  return [...members, ['manifest.json', JSON.stringify(list)], ['repositories', '{}']];
}

/** What `docker save` of version 25 and later writes where the Engine has unpacked its layers: an image layout as well. */
export function savedByNewDocker(
  name: string,
  tag: string,
  { config, layers }: ReturnType<typeof dockerImage>,
): Member[] {
  const blob = (data: Buffer) => `blobs/sha256/${hexOf(data)}`;
  const described = (data: Buffer, mediaType: string) => ({
    mediaType,
    digest: `sha256:${hexOf(data)}`,
    size: data.length,
  });
  const type = 'application/vnd.oci.image';
  const manifest = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: `${type}.manifest.v1+json`,
      config: described(config, `${type}.config.v1+json`),
      layers: layers.map(layer => described(layer, `${type}.layer.v1.tar`)),
    }),
  );
  const annotations = {
    'io.containerd.image.name': `docker.io/library/${name}:${tag}`,
    'org.opencontainers.image.ref.name': tag,
  };
  const index = {
    schemaVersion: 2,
    mediaType: `${type}.index.v1+json`,
    manifests: [{ ...described(manifest, `${type}.manifest.v1+json`), annotations }],
  };
  const list = [{ Config: blob(config), RepoTags: [`${name}:${tag}`], Layers: layers.map(blob) }];
  return [
    ...[config, ...layers, manifest].map(data => [blob(data), data] as const),
    ['index.json', JSON.stringify(index)],
    ['manifest.json', JSON.stringify(list)],
    ['oci-layout', '{"imageLayoutVersion":"1.0.0"}'],
  ];
}

export function gzipped(data: Buffer): Buffer {
  return gzipSync(data);
}
