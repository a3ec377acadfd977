// SPDX-License-Identifier: Apache-2.0

/** Both ends of a connection, as this side sees it. */
export interface Ends {
  readonly remoteAddress: string;
  readonly remotePort: number;
  readonly localAddress: string;
  readonly localPort: number;
}

/** Who has a socket. */
export interface Owner {
  readonly uid: number;
  /** Of the cgroup in which it was made; 0: not known. */
  readonly cgroupId: number;
}

/** Asks the kernel whose the socket with these ends is; null: nobody's here. See `tcpOwner` of the addon. */
export type TcpOwner = (address: string, port: number, peerAddress: string, peerPort: number) => Owner | null;

/** Asks the kernel for one socket, where it answers such questions. */
export class SocketOwners {
  #ask: TcpOwner | null;
  /** It has found something once. */
  #proven = false;

  /** @param ask null: there is nobody to ask. */
  constructor(ask: TcpOwner | null) {
    this.#ask = ask;
  }

  /** Whether an answer can still be had. */
  get works(): boolean {
    return this.#ask !== null;
  }

  /** @returns who is at the other end; null: nobody on this host; undefined: the kernel does not say. */
  atOtherEnd({ remoteAddress, remotePort, localAddress, localPort }: Ends): Owner | null | undefined {
    if (this.#ask === null) return undefined;
    try {
      const owner = this.#ask(remoteAddress, remotePort, localAddress, localPort);
      // "None" may also mean that the kernel lacks the module for TCP. Our own end is surely there.
      this.#proven ||=
        owner !== null || this.#ask(localAddress, localPort, remoteAddress, remotePort) !== null;
      if (this.#proven) return owner;
    } catch {
      // No netlink in this sandbox, or addresses with a zone. The table knows as much.
    }
    if (!this.#proven) this.#ask = null;
    return undefined;
  }
}
