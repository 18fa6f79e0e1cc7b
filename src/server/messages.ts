import { IncomingMessage, ServerResponse } from 'node:http';
import express, { type Express } from 'express';

/*
 * Requests and answers that are Express's from the start. It would else give each of them another prototype as it begins, and
 * whatever looks at them from then on, Node included, takes V8's slow way: that was a quarter of the processor time of a
 * small push (docs/decisions/0034).
 */

export class AppRequest extends IncomingMessage {}

export class AppResponse extends ServerResponse<AppRequest> {}

Object.setPrototypeOf(AppRequest.prototype, express.request);
Object.setPrototypeOf(AppResponse.prototype, express.response);

/**
 * An application for a server that makes these. They have no `app`, which Express's own answers ask for, and of requests `query`,
 * `ip`, `protocol`, `host` and their like: none of them is to be used.
 */
export function expressOfMessages(): Express {
  return Object.assign(express(), { request: AppRequest.prototype, response: AppResponse.prototype });
}
