// A TCP proxy that breaks connections where it is told: in the middle of a frame if that is where the bytes end.

import { connect, createServer } from "node:net";

export class CuttingProxy {
  /** After how many bytes from the server the next connections are reset; null for never. */
  cutAfterBytes = null;
  /** Whether bytes are taken and not handed on, as by a network that lost the way. */
  isDeaf = false;
  #pairs = new Set();

  static async start(port) {
    const self = new CuttingProxy();
    self.targetPort = port;
    self.server = createServer((near) => self.#join(near));
    await new Promise((resolve) => self.server.listen(0, "127.0.0.1", resolve));
    self.port = self.server.address().port;
    return self;
  }

  get connections() {
    return this.#pairs.size;
  }

  #join(near) {
    const far = connect(this.targetPort, "127.0.0.1");
    const pair = { near, far };
    this.#pairs.add(pair);
    const cut = () => {
      this.#pairs.delete(pair);
      near.destroy();
      far.destroy();
    };
    pair.cut = cut;
    let leftBytes = this.cutAfterBytes ?? Infinity;
    near.on("data", (bytes) => this.isDeaf || far.write(bytes));
    far.on("data", (bytes) => {
      if (this.isDeaf) return;
      if (bytes.length < leftBytes) {
        leftBytes -= bytes.length;
        near.write(bytes);
      } else {
        // What is handed on must leave before the cut, or the cut would come first.
        near.write(bytes.subarray(0, leftBytes), () => cut());
        leftBytes = 0;
      }
    });
    for (const socket of [near, far]) {
      socket.setNoDelay(true);
      socket.on("error", cut);
      socket.on("close", cut);
    }
  }

  /** Breaks every connection there is. */
  cutAll() {
    for (const { cut } of [...this.#pairs]) cut();
  }

  stop() {
    this.cutAll();
    return new Promise((resolve) => this.server.close(resolve));
  }
}
