// SPDX-License-Identifier: Apache-2.0
import { type ClientRequest, request as httpRequest } from 'node:http';
import type { SecureContext } from 'node:tls';
import type { buildConnector } from 'undici';
import { AgentrmError, messageOf } from '../errors.ts';

/** Opens a connection for undici. */
export type Connect = ReturnType<typeof buildConnector>;

/** `Proxy-Authorization` as a URL has it; null: it has none. */
export function proxyAuthorization({ username, password }: URL): string | null {
  if (username === '' && password === '') return null;
  const credentials = `${decoded(username)}:${decoded(password)}`;
  return `Basic ${Buffer.from(credentials).toString('base64')}`;
}

/** A password may have a percent sign that nobody has encoded. */
function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/**
 * Connections through an HTTP proxy by its CONNECT, on which `secure` then speaks TLS with the upstream itself: the
 * proxy sees neither credentials nor turns. undici's own agent for this sorts and merges headers, which pass as they
 * are here.
 * @param timeoutMs for the tunnel; `secure` has its own.
 */
export function connectThrough(
  proxy: URL,
  secure: Connect,
  secureContext: SecureContext | undefined,
  timeoutMs: number,
): Connect {
  const authorization = proxyAuthorization(proxy);
  return (options, callback) => {
    const { hostname, port } = options;
    const target = `${hostname}:${port || 443}`;
    let settled = false;
    const fail = (reason: string): void => {
      if (settled) return;
      settled = true;
      clearTimeout(timer);
      request.destroy();
      callback(
        new AgentrmError('AGENTRM_ERR_UPSTREAM', `${target} by the proxy ${proxy.host}: ${reason}`),
        null,
      );
    };
    // Not imported: TLS is some MiB, and few proxies are asked over it.
    const send = proxy.protocol === 'https:' ? process.getBuiltinModule('node:https').request : httpRequest;
    const request: ClientRequest = send({
      method: 'CONNECT',
      host: proxy.hostname.replace(/^\[|\]$/g, ''),
      port: proxy.port || (proxy.protocol === 'https:' ? 443 : 80),
      path: target,
      headers: { host: target, ...(authorization === null ? {} : { 'proxy-authorization': authorization }) },
      agent: false,
      ...(secureContext === undefined ? {} : { secureContext }),
    });
    const timer = setTimeout(() => fail(`no answer within ${timeoutMs / 1000} s`), timeoutMs);
    request.once('error', (error) => fail(messageOf(error)));
    request.once('response', ({ statusCode }) => fail(`it answers ${statusCode} to CONNECT`));
    request.once('connect', ({ statusCode = 0 }, socket, head) => {
      if (statusCode < 200 || statusCode > 299) {
        socket.destroy();
        fail(`it answers ${statusCode} to CONNECT`);
      } else if (settled) {
        socket.destroy();
      } else {
        settled = true;
        clearTimeout(timer);
        if (head.length > 0) socket.unshift(head);
        secure({ ...options, httpSocket: socket as NonNullable<typeof options.httpSocket> }, callback);
      }
    });
    request.end();
  };
}
