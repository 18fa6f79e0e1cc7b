import type { Digest } from '../reference.js';
import { DigestSet } from './digest-set.js';
import type { References } from './references.js';

/** One manifest of a repository. */
export interface ManifestNode {
  readonly canonical: Digest;
  /** Every digest under which the repository has it, the canonical one first. */
  readonly names: readonly Digest[];
  /** Undefined where its content is gone or unreadable. */
  readonly references: Pick<References, 'manifests' | 'subject'> | undefined;
  /** `DigestSet.key` of all that it refers to. */
  readonly referenceKeys: readonly number[];
}

/**
 * The manifests of one repository, and which of them are needed. A manifest keeps what it lists and what has it as its
 * subject; so a signature follows its image, but keeps no image.
 */
export class Reachability {
  private readonly byName = new Map<Digest, ManifestNode>();
  private readonly referrers = new Map<ManifestNode, ManifestNode[]>();
  private readonly kept = new Set<ManifestNode>();
  /** All that the kept manifests refer to. */
  readonly references = new DigestSet();
  /** Kept manifests of which nobody knows what they refer to. */
  readonly unreadable: Digest[] = [];

  constructor(readonly nodes: readonly ManifestNode[]) {
    for (const node of nodes) for (const name of node.names) this.byName.set(name, node);
    for (const node of nodes) {
      const subject = node.references?.subject && this.byName.get(node.references.subject);
      if (subject) this.referrers.set(subject, [...(this.referrers.get(subject) ?? []), node]);
    }
  }

  find(digest: Digest): ManifestNode | undefined {
    return this.byName.get(digest);
  }

  isKept(node: ManifestNode): boolean {
    return this.kept.has(node);
  }

  /** Keeps a manifest, and with it all that it leads to. */
  keep(node: ManifestNode): void {
    const open = [node];
    for (let next = open.pop(); next; next = open.pop()) {
      if (this.kept.has(next)) continue;
      this.kept.add(next);
      for (const key of next.referenceKeys) this.references.addKey(key);
      if (!next.references) this.unreadable.push(next.canonical);
      open.push(...this.ledTo(next));
    }
  }

  /**
   * Those that nothing keeps, each before what it leads to: when one of them turns out to be needed after all, what it
   * leads to is still there, and `keep` keeps it.
   */
  *unneeded(): Generator<ManifestNode> {
    const waiting = new Set(this.nodes.filter(node => !this.kept.has(node)));
    // Of each, how many that are still to come list it, or are its subject.
    const lists = new Map<ManifestNode, number>();
    const subjects = new Map<ManifestNode, number>();
    const count = (counts: Map<ManifestNode, number>, node: ManifestNode, by: number) =>
      counts.set(node, (counts.get(node) ?? 0) + by);
    const leave = (node: ManifestNode, by: number) => {
      for (const child of this.listed(node)) count(lists, child, by);
      for (const referrer of this.referrers.get(node) ?? []) count(subjects, referrer, by);
    };
    for (const node of waiting) leave(node, 1);
    const isFirst = (node: ManifestNode) => !lists.get(node) && !subjects.get(node);
    let ready = [...waiting].filter(isFirst);
    while (waiting.size > 0) {
      // No index can list itself, at any depth; but it can have what it lists as its subject.
      if (ready.length === 0) ready = [...waiting].filter(node => !lists.get(node)).slice(0, 1);
      const node = ready.pop()!;
      if (!waiting.delete(node)) continue;
      if (!this.kept.has(node)) yield node;
      leave(node, -1);
      ready.push(...this.ledTo(node).filter(next => waiting.has(next) && isFirst(next)));
    }
  }

  private ledTo(node: ManifestNode): ManifestNode[] {
    return [...this.listed(node), ...(this.referrers.get(node) ?? [])];
  }

  private listed(node: ManifestNode): ManifestNode[] {
    return (node.references?.manifests ?? []).flatMap(digest => this.byName.get(digest) ?? []);
  }
}
