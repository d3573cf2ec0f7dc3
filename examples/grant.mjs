// Sign a grant in your backend: node grant.mjs private.pem USER ACTION. Needs nothing but Node.
import { createPrivateKey, randomUUID, sign } from "node:crypto";
import { readFileSync } from "node:fs";

const encode = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");

export function grant(privatePem, user, action, seconds = 900) {
  const now = Math.floor(Date.now() / 1000);
  const claims = {
    iss: "game-server", // the issuer of [[auth.grant_issuers]]
    aud: "scoreboard",
    sub: user, // who may have the points
    act: action, // for what
    jti: randomUUID(), // this one completion: the same id counts once, for ever
    iat: now,
    exp: now + seconds,
  };
  const text = `${encode({ alg: "EdDSA", typ: "sb-grant+jwt" })}.${encode(claims)}`;
  const signature = sign(null, Buffer.from(text), createPrivateKey(privatePem));
  return `${text}.${signature.toString("base64url")}`;
}

if (import.meta.url.endsWith("/grant.mjs") && process.argv.length === 5) {
  console.log(grant(readFileSync(process.argv[2]), ...process.argv.slice(3)));
}
