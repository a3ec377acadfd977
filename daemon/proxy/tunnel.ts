// SPDX-License-Identifier: Apache-2.0
import { type ClientRequest, request as httpRequest } from 'node:http';
import { isIP, isIPv6 } from 'node:net';
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

/** A proxy's host as sockets take it. */
function hostOf({ hostname }: URL): string {
  return hostname.replace(/^\[|\]$/g, '');
}

/** The name that its certificate is asked for, empty for an address: requests to it name the API in their `host`. */
function serverNameOf(proxy: URL): string {
  const host = hostOf(proxy);
  return isIP(host) === 0 ? host : '';
}

/** Connections to a proxy itself, which then asks for whole URLs. */
export function connectTo(proxy: URL, open: Connect): Connect {
  const servername = serverNameOf(proxy);
  return (options, callback) => open({ ...options, servername }, callback);
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
    const target = `${isIPv6(hostname) ? `[${hostname}]` : hostname}:${port || 443}`;
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
      host: hostOf(proxy),
      servername: serverNameOf(proxy),
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
