// The link's token follows "#", so that no server sees it before its reader has pressed the button; programs that open links in mails
// press none.
"use strict";
const [purpose, token] = location.hash.slice(1).split("=");
const tasks = {
  verify: {
    ask: "Confirm that this e-mail address is yours.", go: "Confirm", path: "/api/auth/verify-email", body: () => ({ token }),
  },
  reset: {
    ask: "Set a new password. All your sessions end.", go: "Set password", path: "/api/auth/password/reset",
    body: (form) => ({ token, new_password: form.password.value }),
  },
};
const task = tasks[purpose];
if (task && token) {
  history.replaceState(null, "", location.pathname);
  const form = document.getElementById("form"), said = document.getElementById("said");
  document.getElementById("ask").textContent = task.ask;
  document.getElementById("go").textContent = task.go;
  document.getElementById("password").hidden = purpose !== "reset";
  said.textContent = "";
  form.hidden = false;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      const answer = await fetch(task.path, {
        method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(task.body(form)),
      });
      const body = await answer.json();
      const details = body.error && body.error.details ? Object.values(body.error.details).flat().join(" ") : "";
      said.textContent = answer.ok ? body.message : details || body.detail;
      form.hidden = answer.ok || body.error.code === "invalid_link";
    } catch {
      said.textContent = "Factum could not be reached. Try again.";
    }
  });
}
