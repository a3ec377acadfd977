// SPDX-License-Identifier: Apache-2.0
import { once } from 'node:events';
import { createServer, request as forward, type IncomingHttpHeaders } from 'node:http';
import { type AddressInfo, connect, type Socket } from 'node:net';
import type { TestContext } from 'node:test';

/** What was asked of the proxy. */
export interface Asked {
  readonly method: string;
  readonly target: string;
  readonly headers: IncomingHttpHeaders;
}

/** An HTTP proxy as companies have them: CONNECT for TLS, whole URLs without. */
export interface HttpProxy {
  readonly port: number;
  readonly asked: readonly Asked[];
}

/**
 * @param upstreamPort where it goes, whatever name it was asked for: names of the tests are not in any DNS.
 * @param password that it wants; else it answers 407
 */
export async function startHttpProxy(
  t: TestContext,
  upstreamPort: number,
  password?: string,
): Promise<HttpProxy> {
  const asked: Asked[] = [];
  const sockets = new Set<Socket>();
  const expected = password && `Basic ${Buffer.from(password).toString('base64')}`;
  const mayPass = ({ headers }: { headers: IncomingHttpHeaders }): boolean =>
    expected === undefined || headers['proxy-authorization'] === expected;
  const server = createServer((request, response) => {
    const { method = '', url = '', headers, rawHeaders } = request;
    asked.push({ method, target: url, headers });
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
  });
  server.on('connection', (socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
  });
  server.on('connect', (request, socket, head) => {
    asked.push({ method: 'CONNECT', target: request.url ?? '', headers: request.headers });
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
