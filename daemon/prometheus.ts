// SPDX-License-Identifier: Apache-2.0
import { createRequire } from 'node:module';

type Client = typeof import('prom-client');

const require = createRequire(import.meta.url);

// One by one: the package as a whole brings its push gateway, cluster and default metrics along, and with them TLS,
// zlib and OpenTelemetry, 4 MB in each process that has metrics.
export const Counter: Client['Counter'] = require('prom-client/lib/counter');
export const Gauge: Client['Gauge'] = require('prom-client/lib/gauge');
export const Histogram: Client['Histogram'] = require('prom-client/lib/histogram');
export const Registry: Client['Registry'] = require('prom-client/lib/registry');

export type Gauge<L extends string = string> = import('prom-client').Gauge<L>;
export type Histogram<L extends string = string> = import('prom-client').Histogram<L>;
export type Registry = import('prom-client').Registry;
