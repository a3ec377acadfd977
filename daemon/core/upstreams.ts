// SPDX-License-Identifier: Apache-2.0
import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { ProxyConfig } from '../config/proxy.ts';
import { AgentrmError, messageOf } from '../errors.ts';
import type { Provider } from '../proxy/routes.ts';
import type { UpstreamSettings } from '../proxy/upstream.ts';
import { type ProxyEnvironment, viaOf } from '../proxy/via.ts';

/**
 * The upstreams as they are configured, with what their settings name.
 * @throws AgentrmError with the file if it has no certificate, or with the variable if it is no proxy's URL.
 */
export function upstreamsOf(
  { anthropic, openai }: ProxyConfig['upstreams'],
  env: ProxyEnvironment,
): Record<Provider, UpstreamSettings> {
  return { anthropic: upstreamOf(anthropic, env), openai: upstreamOf(openai, env) };
}

function upstreamOf(
  { url, via, ca }: ProxyConfig['upstreams'][Provider],
  env: ProxyEnvironment,
): UpstreamSettings {
  try {
    return { url, via: viaOf(url, via, env), ca: ca === null ? null : certificates(ca) };
  } catch (error) {
    throw new AgentrmError('AGENTRM_ERR_UPSTREAM', messageOf(error), error);
  }
}

function certificates(path: string): string {
  const pem = readFileSync(path, 'utf8');
  try {
    // TLS would take a file without any, and trust nobody.
    new X509Certificate(pem);
  } catch (error) {
    throw new Error(`${path}: no certificate in PEM: ${messageOf(error)}`);
  }
  return pem;
}
