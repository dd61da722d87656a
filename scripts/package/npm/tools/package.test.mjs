// The package for npm as programs use it: installed, type-checked, built by Vite, and speaking to a server.
//
// PACKAGE names the file that `npm pack` made.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { pathToFileURL } from "node:url";

import { build } from "vite";
import WebSocket from "ws";

import { UmbelProcess } from "../../../../tests/clients/umbel_process.mjs";

const PACKAGE = process.env.PACKAGE;
const folder = mkdtempSync(join(tmpdir(), "umbel-npm-"));
const bin = join(import.meta.dirname, "node_modules/.bin");
after(() => rmSync(folder, { recursive: true }));

const PROGRAM = `
import { connect, UmbelError, type Publication } from "umbel-client";

export async function exchange(url: string, WebSocket: unknown): Promise<Publication> {
  const umbel = connect(url, { WebSocket });
  const came = new Promise<Publication>((resolve, reject) => {
    umbel.subscribe("built", { onSubscribed: () => void umbel.publish("built", { n: 7 }), onPublication: resolve, onError: reject });
  });
  return came.finally(() => umbel.close());
}

export const isError = (error: unknown): error is UmbelError => error instanceof UmbelError;
`;

const CONFIG = {
  compilerOptions: {
    strict: true,
    noEmit: true,
    module: "esnext",
    moduleResolution: "bundler",
    target: "es2022",
    lib: ["es2022", "dom"],
    types: [],
  },
  include: ["program.ts"],
};

function run(command, args, cwd = folder) {
  try {
    return execFileSync(command, args, { cwd, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
  } catch (error) {
    assert.fail(`${command}: ${error.stdout}${error.stderr}`);
  }
}

test("publint and attw find nothing", () => {
  run(join(bin, "publint"), ["--strict", PACKAGE]);
  // It has no form for CommonJS.
  run(join(bin, "attw"), ["--profile", "esm-only", PACKAGE]);
});

test("a program is checked, built by Vite, and exchanges a message", { timeout: 60_000 }, async () => {
  writeFileSync(join(folder, "package.json"), '{ "private": true, "type": "module" }');
  writeFileSync(join(folder, "program.ts"), PROGRAM);
  writeFileSync(join(folder, "tsconfig.json"), JSON.stringify(CONFIG));
  run("npm", ["install", "--offline", "--no-audit", "--no-fund", PACKAGE]);
  run(join(bin, "tsc"), ["--project", "tsconfig.json"]);
  const lib = { entry: join(folder, "program.ts"), formats: ["es"], fileName: "built" };
  await build({ root: folder, logLevel: "error", build: { lib, outDir: "dist" } });
  const { exchange, isError } = await import(pathToFileURL(join(folder, "dist/built.js")).href);
  const server = await UmbelProcess.start();
  try {
    const publication = await exchange(`${server.url}/ws`, WebSocket);
    assert.deepEqual(publication.data, { n: 7 });
    assert.equal(isError(new Error("other")), false);
  } finally {
    await server.stop();
  }
});
