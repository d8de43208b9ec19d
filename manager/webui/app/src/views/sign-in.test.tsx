// @vitest-environment jsdom
import { cleanup, render, screen } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { afterEach, expect, test, vi } from "vitest";

import { SignInForm } from "./sign-in";

afterEach(cleanup);

function answering(status: number, body: unknown): ReturnType<typeof vi.fn<typeof fetch>> {
  const answer = vi.fn<typeof fetch>(() => Promise.resolve(new Response(JSON.stringify(body), { status })));
  vi.stubGlobal("fetch", answer);
  return answer;
}

test("a refused token stays in its field, with the reason at it", async () => {
  answering(401, { code: "UNAUTHENTICATED", message: "the token has expired; ask for another one" });
  render(<SignInForm />);
  const field = screen.getByLabelText("Token");
  await userEvent.type(field, "stw_old");
  await userEvent.click(screen.getByRole("button", { name: "Sign in" }));
  const alert = await screen.findByRole("alert");
  expect(alert.textContent).toBe("The token has expired; ask for another one.");
  expect(field).toHaveProperty("value", "stw_old");
  expect(field.getAttribute("aria-invalid")).toBe("true");
  expect(field.getAttribute("aria-describedby")?.split(" ")).toContain(alert.id);
  expect(document.activeElement).toBe(field);
});

test("nothing is asked with an empty field", async () => {
  const asked = answering(200, {});
  render(<SignInForm />);
  await userEvent.click(screen.getByRole("button", { name: "Sign in" }));
  expect(screen.getByRole("alert").textContent).toBe("Enter your token.");
  expect(asked).not.toHaveBeenCalled();
});

test("the token is hidden until it is asked for, and never a part of the address", async () => {
  answering(200, {});
  render(<SignInForm />);
  const field = screen.getByLabelText("Token");
  expect(field).toHaveProperty("type", "password");
  await userEvent.click(screen.getByRole("button", { name: "Show the token" }));
  expect(field).toHaveProperty("type", "text");
  expect(field.closest("form")?.method).toBe("get");
  expect(location.search).toBe("");
});
