/** How a task stands, from answers and from a stream that overtake each other. */

import type { TaskFragment } from "../graphql/generated";

type Standing = Pick<TaskFragment, "id" | "status">;

export const isOpen = (status: Standing["status"]): boolean =>
  status === "PENDING" || status === "RUNNING" || status === "NEEDS_APPROVAL";

/** What is told now, unless it is older than what is known: a task that has ended is never open again. */
export function later<Task extends Standing>(known: Task | null | undefined, told: Task | null): Task | null {
  const ended = known != null && !isOpen(known.status);
  return ended && told !== null && known.id === told.id && isOpen(told.status) ? known : told;
}
