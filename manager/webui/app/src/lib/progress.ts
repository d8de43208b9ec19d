/** How fast an import is and how long it will take, from what its reports say. */

export interface Sample {
  /** Milliseconds. */
  at: number;
  done: number;
}

// A rate over less than this says nothing, and what is older than the window is over.
const LEAST_SPAN = 1000;
const WINDOW = 15_000;
// Without a byte for this long nothing is known of the rest.
const STALLED = 8000;

/** Add a report; a number that falls (a download begun again) forgets what was before. */
export function withSample(samples: readonly Sample[], sample: Sample): Sample[] {
  const last = samples.at(-1);
  if (last !== undefined && sample.done < last.done) return [sample];
  if (last !== undefined && sample.done === last.done) return [...samples];
  const kept = samples.filter((each) => sample.at - each.at <= WINDOW);
  return [...(kept.length > 0 ? kept : last !== undefined ? [last] : []), sample];
}

/** Bytes per second over the window; null while too little is known, 0 when nothing has come for a while. */
export function speed(samples: readonly Sample[], now: number): number | null {
  const first = samples[0];
  const last = samples.at(-1);
  if (first === undefined || last === undefined) return null;
  if (now - last.at > STALLED) return 0;
  const span = last.at - first.at;
  return span < LEAST_SPAN ? null : ((last.done - first.done) * 1000) / span;
}

/** Seconds until all is there; null where nobody can say. */
export function remaining(done: number, total: number | null, perSecond: number | null): number | null {
  if (total === null || perSecond === null || perSecond <= 0) return null;
  return Math.max(0, total - done) / perSecond;
}

/** The part that is there, 0 to 1; null while the total is not known. Never 1 before all is there. */
export function fraction(done: number, total: number | null): number | null {
  if (total === null) return null;
  if (total === 0) return 1;
  return done >= total ? 1 : Math.min(0.999, done / total);
}
