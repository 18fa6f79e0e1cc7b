import { type CopiedImage, Copier, type CopyOptions, type CopyReport, type ImagePair } from '../../src/copy/copy.js';
import type { ImageSource, ImageTarget } from '../../src/copy/place.js';

/** An image that keeps its name, unless told. One that is named by its digest has no tag. */
export function pair(repository: string, reference: string, to = repository, tag = reference): ImagePair {
  return { from: { repository, reference }, to: { repository: to, tag: tag.includes(':') ? undefined : tag } };
}

/** Copies images, and hands back what became of each. */
export async function copyAll(
  from: ImageSource,
  to: ImageTarget,
  pairs: readonly ImagePair[],
  options: Partial<CopyOptions> = {},
): Promise<{ report: CopyReport; images: readonly CopiedImage[]; problems: readonly string[] }> {
  const images: CopiedImage[] = [];
  const copier = new Copier(from, to, { jobs: 4, onImage: done => images.push(done), ...options });
  const report = await copier.run(
    (async function* () {
      yield* pairs;
    })(),
  );
  return { report, images, problems: images.flatMap(({ problem }) => problem ?? []) };
}
