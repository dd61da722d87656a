// Umbel's dialect umbel.v1, for browsers and Node: many topics on one WebSocket that is kept open.
// It depends on nothing. The types, and what each option means, are in umbel.d.ts.
//
// Subscriptions outlive connections: after a loss each one subscribes again from its last position.
// It gets every publication of its topic once and in order, or its `onGap` hears that it did not.

import { UmbelError } from "./umbel/error.js";
import { Link } from "./umbel/link.js";
import { signUrl } from "./umbel/sign.js";

export { UmbelError, signUrl };

/** Connects to `url` and stays connected until `close()`. */
export function connect(url, options = {}) {
  const link = new Link(url, options);
  return {
    get state() {
      return link.state;
    },
    onState: (listener) => link.onState(listener),
    subscribe: (target, handlers = {}) => link.subscribe(target, handlers),
    publish: async (topic, data, publishOptions = {}) => link.publish(topic, data, publishOptions),
    presence: async (topic) => link.presence(topic),
    history: async (topic, part = {}) => link.history(topic, part),
    close: () => link.close(),
  };
}
