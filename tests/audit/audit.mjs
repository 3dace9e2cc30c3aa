// The audits of GraphQL over HTTP against a server: node audit.mjs http://localhost:8000/graphql
// One line for each that is not ok, and a last line with the counts. Exits with 1 unless all are ok, those that only
// speak of what a server may do included.
import { auditServer } from 'graphql-http';

const results = await auditServer({ url: process.argv[2] });

const count = { ok: 0, notice: 0, warn: 0, error: 0 };
for (const { id, name, status, reason } of results) {
  count[status]++;
  if (status !== 'ok') console.log(`${status} ${id} ${name}: ${reason}`);
}
const counts = Object.entries(count).map(([status, number]) => `${status}=${number}`);
console.log(`${results.length} audits: ${counts.join(' ')}`);
process.exitCode = count.ok === results.length ? 0 : 1;
