// Makes pusher.json: signatures by npm pusher 5.3. usage: NODE_PATH=... node make.mjs > pusher.json
import { createRequire } from "node:module";
const require = createRequire(`${process.env.NODE_PATH}/x.js`);
const Pusher = require("pusher");
const { createSignedQueryString } = require("pusher/lib/requests.js");
const key = "278d425bdf160c739803";
const secret = "7ad3773142a6692b25b8";
const pusher = new Pusher({ appId: "3", key, secret, host: "127.0.0.1" });
Date.now = () => 1800000000000;
const member = (user_id, user_info) => ({ user_id, user_info });
const channels = [
    ["1234.1234", "private-foobar"],
    ["1234.1234", "presence-foobar", member(10, { name: "Mr. Channels" })],
    ["215331.9120455", "presence-a@b;c,d=e", member("u1", { name: "\u00c4nne/\u2028" })],
    ["1.2", "presence-x", member("only")],
].map(([socket_id, channel, data]) => ({ socket_id, channel, ...pusher.authorizeChannel(socket_id, channel, data) }));
const users = [
    ["1234.1234", { id: "12345" }],
    ["1.2", { id: "e:1", user_info: { name: "Ann" }, watchlist: ["u2"] }],
].map(([socket_id, data]) => ({ socket_id, ...pusher.authenticateUser(socket_id, data) }));
const requests = [
    { method: "POST", path: "/events", body: JSON.stringify({ name: "foo", channels: ["project-3"], data: '{"some":"data"}' }) },
    { method: "GET", path: "/channels", params: { filter_by_prefix: "presence-", info: "user_count" } },
    { method: "GET", path: "/channels/presence-a@b;c,d=e", params: { info: "user_count,subscription_count" } },
].map((options) => {
    const path = `/apps/3${options.path}`;
    const query = createSignedQueryString(pusher.config.token, { ...options, path });
    const body_md5 = new URLSearchParams(query).get("body_md5");
    return { method: options.method, path, query, body_md5 };
});
console.log(JSON.stringify({ key, secret, channels, users, requests }, null, 1));
