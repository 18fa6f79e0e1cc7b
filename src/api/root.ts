/** What all paths of the API begin with. */
export const ROOT = '/api/v1';

/** Whether a path, without what stands before all of ours, is one of the API's. */
export function isApiPath(path: string): boolean {
  return path.startsWith(ROOT) && ['/', '?', undefined].includes(path[ROOT.length]);
}
