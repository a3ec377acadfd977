// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type ProxyEnvironment, viaOf } from '../../daemon/proxy/via.ts';

const API = 'https://api.example.com';
const proxied: ProxyEnvironment = {
  HTTPS_PROXY: 'http://p.example:3128',
  HTTP_PROXY: 'http://plain.example',
};

describe('viaOf', () => {
  const of = (url: string, env: ProxyEnvironment) => viaOf(url, 'environment', env)?.href ?? null;

  const found: readonly (readonly [url: string, env: ProxyEnvironment, via: string | null])[] = [
    [API, {}, null],
    [API, proxied, 'http://p.example:3128/'],
    ['http://api.example.com', proxied, 'http://plain.example/'],
    [API, { ...proxied, https_proxy: 'http://lower.example' }, 'http://lower.example/'],
    [API, { ...proxied, https_proxy: '' }, null],
    [API, { HTTPS_PROXY: 'p.example:3128' }, 'http://p.example:3128/'],
    [API, { HTTPS_PROXY: 'https://user:word@p.example' }, 'https://user:word@p.example/'],
    [API, { HTTP_PROXY: 'http://plain.example' }, null],
    ['https://127.0.0.1:9', proxied, null],
    ['https://localhost', proxied, null],
    ['https://[::1]', proxied, null],
  ];
  for (const [url, env, via] of found) {
    test(`${url} with ${JSON.stringify(env)}: ${via}`, () => assert.equal(of(url, env), via));
  }

  const excepted: readonly (readonly [url: string, list: string, excepted: boolean])[] = [
    [API, '*', true],
    [API, 'api.example.com', true],
    [API, 'example.com', true],
    [API, '.example.com', true],
    [API, '*.example.com', true],
    [API, 'EXAMPLE.COM', true],
    [API, 'other.test, example.com', true],
    [API, 'other.test example.com', true],
    [API, 'example.com:443', true],
    [API, 'example.com:8443', false],
    [API, 'ample.com', false],
    [API, 'www.api.example.com', false],
    [API, 'com.example', false],
    [API, ' , ,', false],
    ['https://api.example.com.', 'example.com', true],
    ['https://10.1.2.3', '10.0.0.0/8', true],
    ['https://10.1.2.3', '10.1.2.3', true],
    ['https://11.1.2.3', '10.0.0.0/8', false],
    ['https://10.1.2.3', '10.0.0.0/99', false],
    ['https://10.1.2.3', '2.3', false],
    ['https://[fd00::1]', 'fd00::/8', true],
    ['https://[fd00::1]', 'fd00::1', true],
    ['https://[fe80::1]', 'fd00::/8', false],
  ];
  for (const [url, list, is] of excepted) {
    test(`NO_PROXY ${JSON.stringify(list)} ${is ? 'has' : 'has not'} ${url}`, () => {
      assert.equal(of(url, { ...proxied, NO_PROXY: list }) === null, is);
    });
  }

  test('names a variable that holds no proxy, and not what it holds', () => {
    for (const value of [
      'socks5://user:secret@p.example',
      'http://:80',
      'http://p.example/path',
      'http://p?x',
    ]) {
      assert.throws(
        () => of(API, { HTTPS_PROXY: value }),
        /^Error: HTTPS_PROXY: not the URL of an HTTP proxy$/,
      );
    }
  });

  test('of the configuration counts for this machine too, and whatever the environment says', () => {
    assert.equal(viaOf('https://127.0.0.1', 'http://p.example', { NO_PROXY: '*' })?.host, 'p.example');
    assert.equal(viaOf(API, 'direct', proxied), null);
  });
});
