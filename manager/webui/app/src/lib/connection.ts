/** Whether the manager answers. One place knows, shows it, asks again, and says when data has to be fetched anew. */

export interface ConnectionState {
  online: boolean;
  /** Rises each time the connection comes back; what was shown before may be old. */
  epoch: number;
  /** Milliseconds until the manager is asked again, while it does not answer. */
  retryIn: number;
}

const FIRST_DELAY = 500;
const LONGEST_DELAY = 10_000;

/** Milliseconds before the given attempt, from 0: twice as long each time, within a bound, never all clients at once. */
export function retryDelay(attempt: number, random: () => number = Math.random): number {
  const delay = Math.min(LONGEST_DELAY, FIRST_DELAY * 2 ** Math.min(attempt, 16));
  return Math.round(delay * (0.8 + 0.4 * random()));
}

export class Connection {
  private state: ConnectionState = { online: true, epoch: 0, retryIn: 0 };
  private readonly listeners = new Set<() => void>();
  private attempt = 0;
  private timer: ReturnType<typeof setTimeout> | undefined;

  /** `probe` answers whether the manager is there, whatever it says. */
  constructor(private readonly probe: () => Promise<boolean>) {}

  readonly subscribe = (listener: () => void): (() => void) => {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  };

  readonly snapshot = (): ConnectionState => this.state;

  /** Something could not be sent, or a socket broke. */
  readonly lost = (): void => {
    if (!this.state.online) return;
    this.attempt = 0;
    this.again();
  };

  /** What was refused may be allowed now: somebody signed in again. */
  readonly renewed = (): void => {
    this.set({ epoch: this.state.epoch + 1 });
  };

  /** Ask now instead of later: the browser says that it is online, or a person does. */
  readonly tryNow = (): void => {
    if (this.state.online) return;
    clearTimeout(this.timer);
    void this.ask();
  };

  private again(): void {
    const retryIn = retryDelay(this.attempt);
    this.attempt += 1;
    this.set({ online: false, retryIn });
    this.timer = setTimeout(() => void this.ask(), retryIn);
  }

  private async ask(): Promise<void> {
    if (await this.probe()) {
      clearTimeout(this.timer);
      if (!this.state.online) this.set({ online: true, retryIn: 0, epoch: this.state.epoch + 1 });
    } else {
      this.again();
    }
  }

  private set(change: Partial<ConnectionState>): void {
    this.state = { ...this.state, ...change };
    for (const listener of this.listeners) listener();
  }
}
