// SPDX-License-Identifier: Apache-2.0
import { once } from 'node:events';
import { createServer, request as forward, type IncomingHttpHeaders, type RequestListener } from 'node:http';
import { createServer as createSecureServer } from 'node:https';
import { type AddressInfo, connect, type Socket } from 'node:net';
import type { TestContext } from 'node:test';
import type { TLSSocket } from 'node:tls';
import type { Identity } from './upstream.ts';

/** What was asked of the proxy. */
export interface Asked {
  readonly method: string;
  readonly target: string;
  readonly headers: IncomingHttpHeaders;
  /** By which it was asked for its certificate; null: none, or without TLS. */
  readonly serverName: string | null;
}

/** An HTTP proxy as companies have them: CONNECT for TLS, whole URLs without. */
export interface HttpProxy {
  readonly port: number;
  readonly asked: readonly Asked[];
}

/**
 * @param upstreamPort where it goes, whatever name it was asked for: names of the tests are not in any DNS.
 * @param password that it wants; else it answers 407
 * @param identity for TLS with whoever asks it; undefined: none
 */
export async function startHttpProxy(
  t: TestContext,
  upstreamPort: number,
  password?: string,
  identity?: Identity,
): Promise<HttpProxy> {
  const asked: Asked[] = [];
  const sockets = new Set<Socket>();
  const expected = password && `Basic ${Buffer.from(password).toString('base64')}`;
  const mayPass = ({ headers }: { headers: IncomingHttpHeaders }): boolean =>
    expected === undefined || headers['proxy-authorization'] === expected;
  const serverNameOf = (socket: unknown): string | null =>
    (identity && (socket as TLSSocket).servername) || null;
  const listener: RequestListener = (request, response) => {
    const { method = '', url = '', headers, rawHeaders } = request;
    asked.push({ method, target: url, headers, serverName: serverNameOf(request.socket) });
    const kept = rawHeaders.flatMap((name, at) =>
      at % 2 === 0 && !/^proxy-/i.test(name) ? [name, rawHeaders[at + 1] ?? ''] : [],
    );
    const { pathname, search } = new URL(url);
    const onward = forward(
      { port: upstreamPort, method, path: pathname + search, headers: kept, agent: false },
      (answer) => {
        response.writeHead(answer.statusCode ?? 502, answer.rawHeaders);
        answer.pipe(response);
      },
    );
    onward.once('error', () => response.destroy());
    request.pipe(onward);
  };
  const server = identity === undefined ? createServer(listener) : createSecureServer(identity, listener);
  server.on('connection', (socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
  });
  server.on('connect', (request, socket, head) => {
    const { url: target = '', headers } = request;
    asked.push({ method: 'CONNECT', target, headers, serverName: serverNameOf(socket) });
    if (!mayPass(request)) {
      socket.end('HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n');
      return;
    }
    const upstream = connect(upstreamPort, '127.0.0.1', () => {
      socket.write('HTTP/1.1 200 Connection established\r\n\r\n');
      upstream.write(head);
      upstream.pipe(socket).pipe(upstream);
    });
    const end = (): void => {
      upstream.destroy();
      socket.destroy();
    };
    upstream.once('error', end);
    socket.once('error', end);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(async () => {
    for (const socket of sockets) socket.destroy();
    server.close();
    await once(server, 'close');
  });
  return { port: (server.address() as AddressInfo).port, asked };
}
