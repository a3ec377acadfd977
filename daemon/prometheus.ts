// SPDX-License-Identifier: Apache-2.0
// One by one: the package as a whole brings its push gateway, cluster and default metrics along, and with them TLS,
// zlib and OpenTelemetry, 4 MB in each process that has metrics.
export { default as Counter } from 'prom-client/lib/counter.js';
export { default as Gauge } from 'prom-client/lib/gauge.js';
export { default as Histogram } from 'prom-client/lib/histogram.js';
export { default as Registry } from 'prom-client/lib/registry.js';
