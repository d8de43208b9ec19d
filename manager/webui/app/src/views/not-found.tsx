import type { ReactElement } from "react";
import { Link } from "wouter";

import { useTitle } from "../hooks";
import { Empty } from "../ui/parts";

/** Nothing is at this address, or nothing that the caller may see: the two look alike. */
export function NotFound({ title, children }: { title: string; children?: string }): ReactElement {
  useTitle("Not found");
  return (
    <div className="page page-narrow">
      <h1 className="visually-hidden">Not found</h1>
      <Empty
        title={title}
        action={
          <Link className="button button-plain" href="/">
            To the Model Store
          </Link>
        }
      >
        <p>{children ?? "The address may be misspelt, or what was here is gone."}</p>
      </Empty>
    </div>
  );
}
