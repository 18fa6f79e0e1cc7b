import { OperatorError } from '../errors.js';
import { isRepositoryName, isTag } from '../reference.js';

export interface ImageName {
  readonly repository: string;
  readonly tag: string;
}

/**
 * The name of an image as Docker, podman and layouts write it, without the host that it was pulled from: `app:v1` of
 * `docker.io/library/app:v1`. A mere tag belongs to the repository that the place stands for. Undefined for what is none.
 */
export function parseImageName(text: string, own: string): ImageName | undefined {
  const colon = text.lastIndexOf(':');
  const [path, tag] = colon > text.lastIndexOf('/') ? [text.slice(0, colon), text.slice(colon + 1)] : ['', text];
  const repository = path === '' ? own : withoutHost(path);
  return isRepositoryName(repository) && isTag(tag) ? { repository, tag } : undefined;
}

function withoutHost(path: string): string {
  const slash = path.indexOf('/');
  const first = path.slice(0, Math.max(0, slash));
  // As docker tells a host from the first part of a name.
  if (first === '' || !(/[.:]/.test(first) || first === 'localhost')) return path;
  return path.slice(slash + 1).replace(first === 'docker.io' ? /^library\// : /^$/, '');
}

/** The name as Docker knows it by all of it. */
export function dockerName({ repository, tag }: ImageName): string {
  return `docker.io/${repository.includes('/') ? repository : `library/${repository}`}:${tag}`;
}

/** What a file or folder is called, as far as that can be the name of a repository. */
export function repositoryOf(file: string): string {
  const plain = file.toLowerCase().replace(/\.(?:tar|tar\.gz|tgz)$/, '');
  return isRepositoryName(plain) ? plain : 'image';
}

/** Images by the names that a place gives them. Without their hosts, names of different images may become the same. */
export class Shelf<T> {
  readonly #repositories = new Map<string, Map<string, Map<T, string>>>();

  /** @param name of the place, for people */
  constructor(private readonly name: string) {}

  /** @param written the name as it was written there */
  add({ repository, tag }: ImageName, item: T, written: string): void {
    const tags = this.#repositories.get(repository) ?? new Map<string, Map<T, string>>();
    this.#repositories.set(repository, tags);
    tags.set(tag, (tags.get(tag) ?? new Map<T, string>()).set(item, written));
  }

  *repositories(): Generator<string> {
    yield* this.#repositories.keys();
  }

  *tags(repository: string): Generator<string> {
    yield* this.#repositories.get(repository)?.keys() ?? [];
  }

  /** @throws OperatorError where several images have this name */
  find(repository: string, tag: string): T | undefined {
    const found = this.#repositories.get(repository)?.get(tag);
    if (!found) return undefined;
    const [item] = found.keys();
    if (found.size === 1) return item;
    throw new OperatorError(
      `${this.name} has several images that are ${repository}:${tag}: ${[...found.values()].slice(0, 5).join(', ')}`,
      { fix: 'name one of them by its digest' },
    );
  }

  /** All names, for people. */
  get written(): readonly string[] {
    return [...this.#repositories.values()].flatMap(tags => [...tags.values()].flatMap(found => [...found.values()]));
  }
}
