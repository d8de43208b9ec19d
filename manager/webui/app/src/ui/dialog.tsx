/** A dialog: the browser keeps the focus inside, takes Esc, and makes the rest of the page inert. */

import { type ReactElement, type ReactNode, useEffect, useId, useRef } from "react";

import { Icon } from "./icons";

interface DialogProps {
  title: ReactNode;
  children: ReactNode;
  onClose: () => void;
  /** Whether it may be left now; a mutation that is on its way holds it. */
  closable?: boolean;
  size?: "small" | "large";
  className?: string;
}

export function Dialog({ title, children, onClose, closable = true, size = "small", className = "" }: DialogProps): ReactElement {
  const dialog = useRef<HTMLDialogElement>(null);
  const heading = useId();
  useEffect(() => {
    const element = dialog.current;
    if (element === null) return;
    const opener = document.activeElement;
    if (!element.open) element.showModal();
    return () => {
      element.close();
      // The browser returns the focus where the dialog is closed; here it is taken out of the page.
      if (opener instanceof HTMLElement && opener.isConnected) opener.focus();
    };
  }, []);
  return (
    <dialog
      ref={dialog}
      className={`dialog dialog-${size} ${className}`}
      aria-labelledby={heading}
      onCancel={(event) => {
        event.preventDefault();
        if (closable) onClose();
      }}
      onClose={() => {
        // The browser may close it without asking, on a second gesture.
        if (closable) onClose();
        else dialog.current?.showModal();
      }}
      onKeyDown={(event) => {
        if (event.key === "Escape") {
          event.preventDefault();
          event.stopPropagation();
          if (closable) onClose();
        }
      }}
    >
      <div className="dialog-head">
        <h2 id={heading}>{title}</h2>
        {closable && (
          <button type="button" className="icon-button" aria-label="Close" onClick={onClose}>
            <Icon name="cross" />
          </button>
        )}
      </div>
      {children}
    </dialog>
  );
}
