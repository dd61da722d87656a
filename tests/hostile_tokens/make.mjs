// Signs the good claims by npm jose, once for each algorithm.
import { readFileSync } from "node:fs";
import { join } from "node:path";
const { SignJWT, importPKCS8 } = await import(join(process.env.JOSE, "dist/webapi/index.js"));
const [folder, ...names] = process.argv.slice(2);
for (const name of names) {
    const text = readFileSync(join(folder, name));
    const key = name.startsWith("HS") ? text : await importPKCS8(text.toString(), name);
    const token = await new SignJWT({ umbel: { v: 1, subscribe: ["news/**"] } })
        .setProtectedHeader({ alg: name, kid: name })
        .setIssuer(`https://${name}.example`)
        .setSubject("42")
        .setIssuedAt(1800000000)
        .setExpirationTime(1800003600)
        .sign(key);
    console.log(name, token);
}
