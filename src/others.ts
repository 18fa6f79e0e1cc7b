/** The processes that serve beside this one on the same machine. What they are told may be lost. */
export interface Others {
  tell(topic: string, value: unknown): void;
  hear(topic: string, heard: (value: unknown) => void): void;
}

export const NOBODY: Others = { tell: () => {}, hear: () => {} };
