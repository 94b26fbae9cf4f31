// Runs the conformance pack: node build/conformance.js FOLDER. Prints what differs; exit code 1 then.
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { Book, type Action, type Pin, type Reason, type Received } from "./book.js";

interface Head { scenario: string; accepts: Pin[]; cooldown_us: number; executor_id?: string }
interface Fill { account_id: string; subaccount: string; offset: number; ts_us: number }
interface EventLine {
  batch: number; partition: number; offset: number; action: Action; reason: Reason;
  raw?: string; value?: unknown; stands?: boolean;
}
interface Again { liquidation_id: string; action: Action; reason: Reason }
type Line = EventLine | { filled: Fill } | { watermark: { partition: number; ts_us: number } }
  | { silent: number[]; again: Again[] } | { claimed: string };

function check(path: string): { events: number; differences: string[] } {
  const [first, ...rest] = readFileSync(path, "utf8").trimEnd().split("\n");
  const head = JSON.parse(first ?? "") as Head;
  const lines = rest.map((line) => JSON.parse(line) as Line);
  const book = new Book(head.accepts, head.cooldown_us, head.executor_id);
  const differences: string[] = [];
  let batch: EventLine[] = [];
  let events = 0;

  const judge = (): void => {
    const rulings = book.take(batch.map(received));
    batch.forEach((line, index) => {
      const expected = `${line.action} ${line.reason}`;
      const found = `${rulings[index]?.action} ${rulings[index]?.reason}`;
      const place = `${head.scenario} partition ${line.partition} offset ${line.offset}`;
      if (found !== expected) differences.push(`${place}: ${found}, expected ${expected}`);
    });
    events += batch.length;
    batch = [];
  };

  for (const line of lines) {
    if ("filled" in line) {
      judge();
      book.filled(line.filled);
      continue;
    }
    if ("claimed" in line) {
      judge();
      book.claimed(line.claimed);
      continue;
    }
    if ("watermark" in line) {
      judge();
      book.watermark(line.watermark.partition, line.watermark.ts_us);
      continue;
    }
    if ("silent" in line) {
      judge();
      book.listen(line.silent);
      const told = (each: Again) => `${each.liquidation_id} ${each.action} ${each.reason}`;
      const found = book.release().map((ruling) =>
        told({ ...ruling, liquidation_id: ruling.event?.liquidation_id ?? "" }));
      const [one, other] = [found.join(", "), line.again.map(told).join(", ")];
      if (one !== other) differences.push(`${head.scenario} silent: ${one}, expected ${other}`);
      continue;
    }
    if (batch[0] && batch[0].batch !== line.batch) judge();
    batch.push(line);
  }
  judge();
  return { events, differences };
}

function received(line: EventLine): Received {
  const text = line.raw ?? JSON.stringify(line.value);
  return { partition: line.partition, offset: line.offset, text, stands: line.stands === true };
}

const folder = process.argv[2] ?? ".";
const files = readdirSync(folder).filter((name) => name.endsWith(".jsonl")).sort();
const results = files.map((name) => check(join(folder, name)));
const differences = results.flatMap((result) => result.differences);
const events = results.reduce((sum, result) => sum + result.events, 0);
for (const difference of differences) console.log(difference);
console.log(`${files.length} scenarios, ${events} events, ${differences.length} differences`);
process.exitCode = files.length === 0 || differences.length > 0 ? 1 : 0;
