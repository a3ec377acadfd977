// SPDX-License-Identifier: Apache-2.0
import { readFile } from 'node:fs/promises';
import { isIP, type Socket } from 'node:net';
import { endianness } from 'node:os';

/** The fields of a line of /proc/net/tcp and tcp6 (Documentation/networking/proc_net_tcp.rst). */
const UID_FIELD = 7;
const INODE_FIELD = 9;

/** Both ends of a connection, as this side sees it. */
export interface Ends {
  readonly remoteAddress: string;
  readonly remotePort: number;
  readonly localAddress: string;
  readonly localPort: number;
}

/**
 * Which user has the other end of a connection on this host, as the kernel says: a session belongs to a user, and
 * nothing that a request says of itself may reach another's. Unknown for peers elsewhere, in other network
 * namespaces, and where /proc has no such tables.
 */
export class PeerUids {
  readonly #procRoot: string;
  readonly #known = new WeakMap<Socket, Promise<number | null>>();
  #running: Promise<Buffer> | undefined;
  #next: Promise<Buffer> | undefined;

  constructor(procRoot = '/proc') {
    this.#procRoot = procRoot;
  }

  /** Asked once for each connection, best as soon as it is there. Never rejects. */
  of(socket: Socket): Promise<number | null> {
    let known = this.#known.get(socket);
    if (known === undefined) {
      known = this.#look(socket);
      this.#known.set(socket, known);
    }
    return known;
  }

  async #look({ remoteAddress, remotePort, localAddress, localPort }: Socket): Promise<number | null> {
    if (remoteAddress === undefined || localAddress === undefined) return null;
    if (remotePort === undefined || localPort === undefined) return null;
    return uidIn(await this.#table(), { remoteAddress, remotePort, localAddress, localPort });
  }

  /** A table that is read from now on: one that is being read may be without a connection that has just come. */
  #table(): Promise<Buffer> {
    if (this.#running === undefined) {
      this.#running = this.#read();
      return this.#running;
    }
    this.#next ??= this.#running.then(() => {
      this.#next = undefined;
      this.#running = this.#read();
      return this.#running;
    });
    return this.#next;
  }

  async #read(): Promise<Buffer> {
    const tables = ['tcp', 'tcp6'].map((name) =>
      readFile(`${this.#procRoot}/net/${name}`).catch(() => Buffer.alloc(0)),
    );
    // Not as text: a host that opens many connections has megabytes of those that are over.
    const both = Buffer.concat(await Promise.all(tables));
    this.#running = this.#next;
    return both;
  }
}

/** @returns null if nobody on this host has it, or has closed it. */
export function uidIn(table: Buffer, ends: Ends): number | null {
  for (const [peer, own] of namesOf(ends)) {
    const at = table.indexOf(` ${peer} ${own} `);
    if (at < 0) continue;
    const line = table.toString('latin1', table.lastIndexOf('\n', at) + 1, table.indexOf('\n', at));
    const fields = line.trim().split(/\s+/);
    // What is closed on that side has no inode any more, and 0 for its user.
    if (fields[INODE_FIELD] === '0') continue;
    const uid = Number(fields[UID_FIELD]);
    if (Number.isInteger(uid)) return uid;
  }
  return null;
}

/** The peer's end and ours, in the forms in which either table may have them. */
function* namesOf({ remoteAddress, remotePort, localAddress, localPort }: Ends): Generator<[string, string]> {
  for (const form of [ipv4Hex, mappedHex, ipv6Hex]) {
    const peer = form(remoteAddress);
    const own = form(localAddress);
    if (peer !== null && own !== null) yield [`${peer}:${hex(remotePort, 4)}`, `${own}:${hex(localPort, 4)}`];
  }
}

function ipv4Hex(address: string): string | null {
  const plain = address.replace(/^::ffff:/i, '');
  return isIP(plain) === 4 ? word(plain.split('.').map(Number)) : null;
}

/** IPv4 over an IPv6 socket. */
function mappedHex(address: string): string | null {
  const plain = ipv4Hex(address);
  return plain === null ? null : `${word([0, 0, 0, 0]).repeat(2)}${word([0, 0, 0xff, 0xff])}${plain}`;
}

function ipv6Hex(address: string): string | null {
  if (isIP(address) !== 6 || address.includes('.') || address.includes('%')) return null;
  const [head = '', tail] = address.split('::');
  const groups = (part: string | undefined): number[] =>
    part ? part.split(':').map((group) => Number.parseInt(group, 16)) : [];
  const before = groups(head);
  const after = groups(tail);
  const all = [...before, ...new Array<number>(8 - before.length - after.length).fill(0), ...after];
  const bytes = all.flatMap((group) => [group >> 8, group & 0xff]);
  return [0, 4, 8, 12].map((at) => word(bytes.slice(at, at + 4))).join('');
}

/** Four bytes of an address as the kernel prints them: as one number of the machine. */
function word(bytes: readonly number[]): string {
  const ordered = endianness() === 'LE' ? [...bytes].reverse() : bytes;
  return ordered.map((byte) => hex(byte, 2)).join('');
}

function hex(value: number, digits: number): string {
  return value.toString(16).toUpperCase().padStart(digits, '0');
}
