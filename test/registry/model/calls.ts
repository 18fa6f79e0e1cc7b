import { deleteBlob, getBlob } from './blobs.js';
import type { Call } from './call.js';
import { catalog, deleteRepository, referrers, search, tags } from './lists.js';
import { deleteManifest, getManifest, put } from './manifests.js';
import type { Of, Operation } from './operations.js';
import { cancel, finish, mount, patch, post, start, status } from './uploads.js';
import type { World } from './world.js';

const CALLS = {
  start,
  patch,
  status,
  cancel,
  finish,
  post,
  mount,
  getBlob,
  deleteBlob,
  put,
  getManifest,
  deleteManifest,
  tags,
  referrers,
  catalog,
  search,
  deleteRepository,
} satisfies { [Name in Operation['do']]?: (world: World, operation: Of<Name>) => Call };

/** An operation that is one request. */
export type Request = Extract<Operation, { do: keyof typeof CALLS }>;

/** The request that an operation is in this state of the world, and what it should be answered. */
export function callOf(world: World, operation: Request): Call {
  return (CALLS[operation.do] as (world: World, operation: Request) => Call)(world, operation);
}
