// What an executor knows of liquidations, and whether an event of theirs is to be acted on: the rules
// of solvent's streams/solvent/executor/book.py, which says what each reason means. Times are stream
// time in microseconds, of the partition a record was read from. No clock, no chance, no I/O.

export type Action = "act" | "claim" | "end" | "ignore";
export type Reason =
  | "live" | "gap" | "ended" | "not_understood" | "stale_episode" | "duplicate" | "conflict"
  | "superseded" | "suspended" | "unknown_word" | "dry_run" | "wrong_rulebook" | "nothing_to_trade"
  | "expired" | "waits_for_own_fill" | "cooldown" | "claimed" | "stale_heartbeat";

/** A record of liquidations.v1; if it stands, of liquidation-state.v1, read to its end at the start. */
export interface Received { partition: number; offset: number; text: string; stands?: boolean }
export interface Pin { id: string; version: number | null; hash: string | null }
export interface Leg { market: string; side: string; size: string; limit_price: string }
export interface Swap { debt: string; repay: string; collateral: string; seize: string }
export interface Claim {
  token: number; executor_id: string; report_id: string; expires_us: number;
  sizes: { market: string; size: string }[];
}
export interface Liquidation {
  schema_version: number; liquidation_id: string; revision: number; event: string;
  account_id: string; subaccount: string; episode: number; ts_us: number; expires_us: number | null;
  legs: Leg[]; swaps?: Swap[]; dry_run?: boolean; lease?: object; claims?: Claim[]; inputs: Record<string, number>;
  rulebook: { id: string; version: number; hash: string };
}
export interface Ruling { action: Action; reason: Reason; received: Received; event?: Liquidation }

interface Case { episode: number; revision: number; ended: boolean; seen: Map<number, string> }

const MAX_SEEN = 64; // revisions of a case whose content is remembered
const ANY_TEXT = ""; // of a revision known only as it stands: any text of it is known
const MAX_REMEMBERED = 100_000; // units whose ended case is remembered, accounts whose fill is

export class Book {
  gaps = 0;
  private streamUs = new Map<number, number>();
  private open = new Map<string, Case>();
  private ended = new Map<string, Case>();
  private ownFills = new Map<string, number>();
  private filledUs = new Map<string, number>();
  private silent = new Set<number>();
  private held = new Map<string, Ruling>();
  private ownReports = new Map<string, true>();

  constructor(private accepts: Pin[] = [], private cooldownUs = 0, private executorId = "") {}

  /** One ruling a record, in their order; the batch counts as known all at once. */
  take(batch: Received[]): Ruling[] {
    const rulings = batch.map((received) => this.enter(received));
    const newest = new Map<string, number>();
    rulings.forEach((ruling, index) => {
      const isNoted = ruling.reason === "suspended" || ruling.reason === "unknown_word";
      const isNews = isNoted || ruling.action !== "ignore";
      if (ruling.event && isNews) newest.set(unitOf(ruling.event), index);
    });
    return rulings.map((ruling, index) => {
      if (ruling.action !== "act" || !ruling.event) return ruling;
      return this.weigh(ruling, ruling.event, newest.get(unitOf(ruling.event)) === index);
    });
  }

  /** A watermark was read: the stream time it tells. */
  watermark(partition: number, tsUs: number): void {
    this.streamUs.set(partition, Math.max(tsUs, this.streamUs.get(partition) ?? 0));
  }

  /** Nothing was heard from these partitions for too long: nothing is taken there. */
  listen(silent: number[]): void {
    this.silent = new Set(silent);
  }

  /** Rulings on offers that waited for a watermark which has come. */
  release(): Ruling[] {
    const heard = [...this.held].filter(([, ruling]) => !this.silent.has(ruling.received.partition));
    return heard.map(([unit, ruling]) => {
      this.held.delete(unit);
      return ruling.event ? this.weigh(ruling, ruling.event, true) : ruling;
    });
  }

  /** A fill of ours was committed: its place in its partition of trades.v1, its event time. */
  filled(fill: { account_id: string; subaccount: string; offset: number; ts_us: number }): void {
    const unit = `${fill.account_id}:${fill.subaccount}`;
    remember(this.ownFills, unit, Math.max(fill.offset, this.ownFills.get(unit) ?? -1));
    if (this.cooldownUs === 0) return;
    const latestUs = Math.max(fill.ts_us, this.filledUs.get(fill.account_id) ?? 0);
    remember(this.filledUs, fill.account_id, latestUs);
  }

  /** A claim of ours is being written. */
  claimed(reportId: string): void {
    remember(this.ownReports, reportId, true);
  }

  /** Our claim on an offer, if one stands: its token is what our fills name, its sizes our share. */
  ownClaim(offer: Liquidation): Claim | undefined {
    const ours = (offer.claims ?? []).filter((claim) => this.ownReports.has(claim.report_id));
    return ours.sort((one, other) => other.token - one.token)[0];
  }

  private enter(received: Received): Ruling {
    const event = received.stands ? parseStanding(received.text) : parse(received.text);
    if (!event) return { action: "ignore", reason: "not_understood", received };
    const unit = unitOf(event);
    this.watermark(received.partition, event.ts_us);
    const known = this.open.get(unit) ?? this.ended.get(unit);
    const old = known && oldNews(event, known, received.text);
    if (old) return { action: "ignore", reason: old, received, event };
    const isGap = known !== undefined && !follows(event, known);
    if (isGap) this.gaps += 1;
    const isEnd = event.event === "recovered" || event.event === "closed";
    this.advance(event, known, received.stands ? ANY_TEXT : received.text, isEnd);
    if (isEnd) return { action: "end", reason: "ended", received, event };
    if (event.event === "suspended" || event.event === "escalated") return { action: "ignore", reason: "suspended", received, event };
    if (event.event !== "opened" && event.event !== "revised" && event.event !== "claimed")
      return { action: "ignore", reason: "unknown_word", received, event };
    return { action: "act", reason: isGap ? "gap" : "live", received, event };
  }

  private advance(event: Liquidation, known: Case | undefined, text: string, isEnd: boolean): void {
    const unit = unitOf(event);
    const isSame = known?.episode === event.episode;
    const seen = isSame ? known.seen : new Map<number, string>();
    remember(seen, event.revision, text, MAX_SEEN);
    const now = { episode: event.episode, revision: event.revision, ended: isEnd, seen };
    this.ended.delete(unit);
    this.held.delete(unit);
    if (tradesRead(event) > (this.ownFills.get(unit) ?? -1)) this.ownFills.delete(unit);
    if (!isEnd) {
      this.open.set(unit, now);
      return;
    }
    this.open.delete(unit);
    remember(this.ended, unit, now);
  }

  private weigh(ruling: Ruling, offer: Liquidation, isNewest: boolean): Ruling {
    const reason = isNewest ? this.obstacle(offer, ruling.received) : "superseded";
    if (reason === "stale_heartbeat") this.held.set(unitOf(offer), ruling);
    if (reason) return { ...ruling, action: "ignore", reason };
    return offer.lease && !this.ownClaim(offer) ? { ...ruling, action: "claim" } : ruling;
  }

  /** Why an offer that is the newest of its unit is left alone. */
  private obstacle(offer: Liquidation, received: Received): Reason | null {
    const partition = received.partition;
    const nowUs = this.streamUs.get(partition) ?? 0;
    if (offer.legs.some((leg) => leg.side !== "buy" && leg.side !== "sell")) return "unknown_word";
    if (offer.dry_run) return "dry_run";
    if (this.accepts.length && !this.accepts.some((pin) => admits(pin, offer.rulebook)))
      return "wrong_rulebook";
    if (!offer.legs.length && !offer.swaps?.length) return "nothing_to_trade";
    if (offer.expires_us !== null && nowUs > offer.expires_us) return "expired";
    const ownFill = this.ownFills.get(unitOf(offer)) ?? -1;
    if (tradesRead(offer) <= ownFill) return "waits_for_own_fill";
    const filledUs = this.filledUs.get(offer.account_id);
    if (filledUs !== undefined && nowUs < filledUs + this.cooldownUs) return "cooldown";
    if (offer.lease && !this.ownClaim(offer) && !isFree(offer, this.executorId, received.stands === true))
      return "claimed";
    return this.silent.has(partition) ? "stale_heartbeat" : null;
  }
}

/** Whether an executor may claim something of a leased offer, on which it has no claim. */
function isFree(offer: Liquidation, executorId: string, isStart: boolean): boolean {
  const ours = (claim: Claim) => claim.executor_id === executorId;
  const others = (offer.claims ?? []).filter((claim) => !isStart || !ours(claim));
  if (!executorId || others.some(ours)) return false; // another program under our name
  return offer.legs.some((leg) => {
    const sizes = others.flatMap((claim) => claim.sizes.filter((part) => part.market === leg.market));
    return scaled(leg.size) > sizes.reduce((sum, part) => sum + scaled(part.size), 0n);
  });
}

/** A plain decimal above 0 in units of 1e-18. */
function scaled(text: string): bigint {
  const [whole = "", part = ""] = text.split(".");
  return BigInt(whole + part.padEnd(18, "0").slice(0, 18));
}

function unitOf(event: Liquidation): string {
  return `${event.account_id}:${event.subaccount}`; // neither holds a colon
}

function tradesRead(event: Liquidation): number {
  return event.inputs["trades.v1"] ?? 0; // the next offset: what lies below is known
}

function oldNews(event: Liquidation, known: Case, text: string): Reason | null {
  if (event.episode !== known.episode) return event.episode < known.episode ? "stale_episode" : null;
  const seen = known.seen.get(event.revision);
  if (seen !== undefined) return seen === text || seen === ANY_TEXT ? "duplicate" : "conflict";
  if (event.revision < known.revision) return "superseded";
  return known.ended ? "ended" : null;
}

function follows(event: Liquidation, known: Case): boolean {
  return known.ended
    ? event.episode === known.episode + 1 && event.revision === 1
    : event.episode === known.episode && event.revision === known.revision + 1;
}

function admits(pin: Pin, book: Liquidation["rulebook"]): boolean {
  return pin.id === book.id && (pin.version ?? book.version) === book.version
    && (pin.hash ?? book.hash) === book.hash;
}

/** Puts a value in last and forgets the oldest beyond `most`. */
function remember<K, V>(kept: Map<K, V>, key: K, value: V, most = MAX_REMEMBERED): void {
  kept.delete(key);
  kept.set(key, value);
  const [oldest] = kept.size > most ? kept.keys() : [];
  if (oldest !== undefined) kept.delete(oldest);
}

/** A case that stands: what its id tells is not told again. */
function parseStanding(text: string): Liquidation | null {
  try {
    const found = JSON.parse(text) as { kind?: unknown; liquidation_id?: unknown } | null;
    if (found?.kind !== "case" || typeof found.liquidation_id !== "string") return null;
    const [account_id, subaccount, episode] = found.liquidation_id.split(":");
    return parse(JSON.stringify({ ...found, account_id, subaccount, episode: Number(episode) }));
  } catch {
    return null;
  }
}

/** The event a text holds, null if it is none: what acting depends on is looked at, no more. */
function parse(text: string): Liquidation | null {
  let found: unknown;
  try {
    found = JSON.parse(text);
  } catch {
    return null;
  }
  if (typeof found !== "object" || found === null) return null;
  const event = found as Liquidation;
  const counts = [event.revision, event.episode, event.ts_us, event.expires_us ?? 0];
  const isSound = event.schema_version === 1
    && counts.every((each) => Number.isSafeInteger(each) && each >= 0)
    && event.revision >= 1 && event.episode >= 1 && event.expires_us !== undefined
    && typeof event.event === "string" && Array.isArray(event.legs)
    && typeof event.inputs === "object" && typeof event.rulebook === "object"
    && event.liquidation_id === `${event.account_id}:${event.subaccount}:${event.episode}`;
  return isSound ? event : null;
}
