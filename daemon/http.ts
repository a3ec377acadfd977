// SPDX-License-Identifier: Apache-2.0

// Not imported: an import reads every export, WebSocket too, and so loads Node's own undici, TLS and HTTP/2. That takes
// longer (60 ms) than all else that a command of `agentrm` does, and keeps 4 MB in the daemon that nobody uses.
export const { createServer, request } = process.getBuiltinModule('node:http');
