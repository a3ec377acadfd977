// SPDX-License-Identifier: Apache-2.0
import { BlockList, isIP } from 'node:net';

/** The environment that programs take their HTTP proxy from. */
export type ProxyEnvironment = Readonly<Record<string, string | undefined>>;

/** What the configuration says: a proxy's URL, none, or whatever the environment says. */
export type Via = 'environment' | 'direct' | (string & {});

const DEFAULT_PORTS: Readonly<Record<string, string>> = { 'http:': '80', 'https:': '443' };

/**
 * The HTTP proxy by which an upstream is reached. The environment is read as curl and Go do: `https_proxy` or
 * `http_proxy` by the upstream's scheme, in lower case first; not for what `no_proxy` names, and never for this
 * machine itself, which a proxy elsewhere would take for its own.
 * @returns null: none.
 * @throws Error naming the variable if it holds no URL of a proxy; never its value, which may have a password in it.
 */
export function viaOf(upstream: string, via: Via, env: ProxyEnvironment): URL | null {
  if (via === 'direct') return null;
  if (via !== 'environment') return new URL(via);
  const url = new URL(upstream);
  const name = url.protocol === 'https:' ? 'https_proxy' : 'http_proxy';
  const [variable, text] = variableOf(env, name);
  if (text === '' || isLoopback(url) || isExcepted(url, variableOf(env, 'no_proxy')[1])) return null;
  // A host and a port alone are as usual as a URL.
  const proxy = URL.parse(text.includes('://') ? text : `http://${text}`);
  if (!isProxyUrl(proxy)) throw new Error(`${variable}: not the URL of an HTTP proxy`);
  return proxy;
}

/** Of a proxy only these: SOCKS is another protocol. */
export function isProxyUrl(url: URL | null): url is URL {
  return (
    (url?.protocol === 'http:' || url?.protocol === 'https:') &&
    url.hostname !== '' &&
    url.pathname === '/' &&
    url.search === '' &&
    url.hash === ''
  );
}

function variableOf(env: ProxyEnvironment, name: string): readonly [variable: string, text: string] {
  const upper = name.toUpperCase();
  const variable = env[name] === undefined ? upper : name;
  return [variable, env[variable]?.trim() ?? ''];
}

function hostOf({ hostname }: URL): string {
  return hostname.replace(/^\[|\]$/g, '').replace(/\.$/, '');
}

function isLoopback(url: URL): boolean {
  const host = hostOf(url);
  return (
    host === 'localhost' || host.endsWith('.localhost') || host === '::1' || /^127(\.\d+){3}$/.test(host)
  );
}

/** Whether a list of hosts, domains (with everything below), addresses and networks has it; `*` is everything. */
function isExcepted(url: URL, list: string): boolean {
  const host = hostOf(url);
  const port = url.port || (DEFAULT_PORTS[url.protocol] ?? '');
  return list
    .toLowerCase()
    .split(/[\s,]+/)
    .some((entry) => {
      if (entry === '' || entry === '*') return entry === '*';
      if (isIP(host) !== 0 && isInNetwork(host, entry)) return true;
      const [, name = '', onlyPort] = /^(\[[^\]]*\]|[^:]*|.*:.*:.*?)(?::(\d+))?$/.exec(entry) ?? [];
      if (onlyPort !== undefined && onlyPort !== port) return false;
      const domain = name.replace(/^\[|\]$/g, '').replace(/^\*?\./, '');
      return host === domain || (domain !== '' && isIP(host) === 0 && host.endsWith(`.${domain}`));
    });
}

function isInNetwork(host: string, entry: string): boolean {
  const [network = '', bits = ''] = entry.split('/');
  const family = isIP(network);
  if (family === 0 || !/^\d{1,3}$/.test(bits) || Number(bits) > (family === 4 ? 32 : 128)) return false;
  const type = family === 4 ? 'ipv4' : 'ipv6';
  const list = new BlockList();
  list.addSubnet(network, Number(bits), type);
  return isIP(host) === family && list.check(host, type);
}
