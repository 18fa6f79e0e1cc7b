import { OperatorError } from '../errors.js';
import { DockerSource } from './docker-source.js';
import { type Files, readJson } from './files.js';
import { blobPath, hasPlainLayers, LayoutIndex } from './layout-index.js';
import { LayoutSource } from './layout-source.js';
import type { ImageSource } from './place.js';

/** The images of an archive, whoever wrote it. @param own the repository of entries with a mere tag @throws OperatorError */
export async function openArchive(files: Files, own: string): Promise<ImageSource> {
  try {
    const index = await LayoutIndex.read(files, own);
    const isMade = index && (await wasMadeBySave(files, index));
    if (index && !isMade) return new LayoutSource(files, index);
    const docker = await DockerSource.open(files);
    if (docker) return docker;
    if (index) return new LayoutSource(files, index);
    throw new OperatorError(`${files.name} is neither an archive of docker save nor an OCI image layout`, {
      fix: 'a backup is put back by registry-secure restore; what docker export wrote is no image',
    });
  } catch (error) {
    await files.close();
    throw error;
  }
}

/**
 * Where Docker has unpacked the layers of what was pulled, `docker save` makes manifests of its own, with layers that are not
 * compressed: those are for no registry.
 */
export async function wasMadeBySave(files: Files, { entries, asPushed }: LayoutIndex): Promise<boolean> {
  if (asPushed) return false;
  for (const { digest } of entries) if (hasPlainLayers(await readJson(files, blobPath(digest)))) return true;
  return false;
}
