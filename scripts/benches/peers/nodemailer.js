// nodemailer with a pool of connections and Handlebars, as its documentation has it.
// node nodemailer.js MODULES PEOPLE.json HOST PORT COUNT WARM CONNECTIONS [DKIM.pem]
// WARM messages are sent before it begins, so that V8 has compiled what is hot.
"use strict";
const fs = require("fs");
const path = require("path");
const { createRequire } = require("module");

const [modules, peopleFile, host, port, count, warm, connections, dkimFile] = process.argv.slice(2);
const load = createRequire(path.join(modules, "package.json"));
const nodemailer = load("nodemailer");
const Handlebars = load("handlebars");

const { mail, people } = JSON.parse(fs.readFileSync(peopleFile, "utf8"));
const subject = Handlebars.compile(mail.handlebars.subject, { noEscape: true });
const text = Handlebars.compile(mail.handlebars.text, { noEscape: true });
const html = Handlebars.compile(mail.handlebars.html);
const transport = nodemailer.createTransport({
  pool: true,
  host,
  port: Number(port),
  secure: false,
  ignoreTLS: true,
  maxConnections: Number(connections),
  maxMessages: Infinity,
  ...(dkimFile
    ? { dkim: { domainName: "mailyard.example", keySelector: "bench", privateKey: fs.readFileSync(dkimFile, "utf8") } }
    : {}),
});

const token = (n, kind) => `AAGGoAZ${String(n).padStart(7, "0")}${kind}k3vQ1Zp_xw`; // as long as the hub's own

function send(n) {
  const person = people[n % people.length];
  const unsubscribeUrl = `${mail.public_url}/u/${token(n, "u")}`;
  const values = { ...person, postal_address: mail.postal_address, unsubscribe_url: unsubscribeUrl };
  for (let link = 0; link <= 5; link++) values[`token${link}`] = token(n, link);
  const [local, domain] = mail.return_path.split("@");
  return transport.sendMail({
    envelope: { from: `${local}+${token(n, "b")}@${domain}`, to: person.email },
    from: mail.from,
    to: person.email,
    subject: subject(values),
    text: text(values),
    html: html(values),
    textEncoding: "quoted-printable",
    messageId: `<${n}.${token(n, "m")}@mailyard.example>`,
    headers: {
      "Feedback-ID": mail.feedback_id,
      "List-Id": `<${mail.list_id}>`,
      "List-Unsubscribe": `<${unsubscribeUrl}>`,
      "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
    },
  });
}

function cpu() {
  const used = process.cpuUsage();
  return (used.user + used.system) / 1e6;
}

async function sendAll(first, total) {
  let next = first;
  const one = async () => {
    while (next < first + total) await send(next++);
  };
  await Promise.all(Array.from({ length: Number(connections) * 2 }, one));
}

async function main() {
  await sendAll(0, Number(warm));
  console.log("begin", JSON.stringify({ cpu: cpu(), warmed: Number(warm) }));
  await new Promise((heard) => process.stdin.once("data", heard));
  process.stdin.pause();
  await sendAll(Number(warm), Number(count));
  console.log("end", JSON.stringify({ cpu: cpu() }));
  transport.close();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
