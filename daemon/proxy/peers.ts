// SPDX-License-Identifier: Apache-2.0
import { readFile } from 'node:fs/promises';
import { isIP, type Socket } from 'node:net';
import { endianness } from 'node:os';
import { nowMs } from '../clock.ts';
import { RecentMap } from '../scheduler/recent-map.ts';
import { type Ends, SocketOwners, type TcpOwner } from './socket-owner.ts';

/** The fields of a line of /proc/net/tcp and tcp6 (Documentation/networking/proc_net_tcp.rst). */
const UID_FIELD = 7;
const INODE_FIELD = 9;

/**
 * How long who asked is taken to be the user that had the connection: whoever has both the credential and the name of
 * the session. Only where the kernel cannot be asked for one connection: reading the table takes it a walk through all
 * of its buckets, 36 ms on a machine with 2 GiB, which clients that open a connection for each request must not wait
 * for each time.
 */
const KEPT_MS = 60_000;

/** As many as there are sessions. */
const MAX_KEPT = 10_000;

/** Who is at the other end of a connection. */
export interface Peer {
  /** Null: not known. */
  readonly uid: number | null;
  /** The cgroup in which it connected, as the kernel numbers it; null: not known. */
  readonly place: number | null;
}

const NOBODY: Peer = { uid: null, place: null };

interface Kept {
  readonly peer: Promise<Peer>;
  readonly untilMs: number;
}

/**
 * Which user has the other end of a connection on this host, as the kernel says: a session belongs to a user, and
 * nothing that a request says of itself may reach another's. Unknown for peers elsewhere, in other network
 * namespaces, and where there is neither an answer by netlink nor a table in /proc.
 */
export class Peers {
  readonly #procRoot: string;
  readonly #ofSocket = new WeakMap<Socket, Peer | Promise<Peer>>();
  readonly #kept = new RecentMap<string, Kept>(MAX_KEPT, () => {});
  readonly #tables: Readonly<Record<'tcp' | 'tcp6', SharedRead>>;

  readonly #owners: SocketOwners;

  /** @param tcpOwner null: only the tables are read. */
  constructor(tcpOwner: TcpOwner | null, procRoot = '/proc') {
    this.#owners = new SocketOwners(tcpOwner);
    this.#procRoot = procRoot;
    this.#tables = { tcp: this.#readerOf('tcp'), tcp6: this.#readerOf('tcp6') };
  }

  /**
   * Looked up once for each connection; where tables are read, not even that for one like another of a moment ago. Never
   * rejects. No promise: it is known already.
   * @param who asks: the credential and the name of the session.
   */
  of(socket: Socket, who: string): Peer | Promise<Peer> {
    const known = this.#ofSocket.get(socket);
    if (known !== undefined) return known;
    const peer = this.#owners.works ? this.#look(socket) : this.#lookFor(socket, who);
    this.#ofSocket.set(socket, peer);
    peer.then((found) => this.#ofSocket.set(socket, found));
    return peer;
  }

  #lookFor(socket: Socket, who: string): Promise<Peer> {
    const atMs = nowMs();
    const kept = this.#kept.peek(who);
    if (kept !== undefined && atMs < kept.untilMs) return kept.peer;
    const peer = this.#look(socket);
    this.#kept.set(who, { peer, untilMs: atMs + KEPT_MS });
    return peer;
  }

  async #look({ remoteAddress, remotePort, localAddress, localPort }: Socket): Promise<Peer> {
    if (remoteAddress === undefined || localAddress === undefined) return NOBODY;
    if (remotePort === undefined || localPort === undefined) return NOBODY;
    const ends = { remoteAddress, remotePort, localAddress, localPort };
    const asked = this.#owners.atOtherEnd(ends);
    if (asked !== undefined) {
      return asked === null
        ? NOBODY
        : { uid: asked.uid, place: asked.cgroupId === 0 ? null : asked.cgroupId };
    }
    const uid = uidIn(await this.#tables.tcp.next(), ends) ?? uidIn(await this.#tables.tcp6.next(), ends);
    return { uid, place: null };
  }

  #readerOf(name: string): SharedRead {
    // Not as text: a host that opens many connections has megabytes of those that are over.
    return new SharedRead(() => readFile(`${this.#procRoot}/net/${name}`).catch(() => Buffer.alloc(0)));
  }
}

/** One read for all who ask while another one is under way: that one may be without what has just come. */
class SharedRead {
  readonly #read: () => Promise<Buffer>;
  #running: Promise<Buffer> | undefined;
  #following: Promise<Buffer> | undefined;

  constructor(read: () => Promise<Buffer>) {
    this.#read = read;
  }

  /** What is read from now on. */
  next(): Promise<Buffer> {
    if (this.#running === undefined) return this.#start();
    this.#following ??= this.#running.then(() => {
      this.#following = undefined;
      return this.#start();
    });
    return this.#following;
  }

  #start(): Promise<Buffer> {
    const running = this.#read().finally(() => {
      if (this.#running === running) this.#running = undefined;
    });
    this.#running = running;
    return running;
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
