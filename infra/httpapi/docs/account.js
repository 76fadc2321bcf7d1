// The link's token follows "#", so that no server sees it before its reader has pressed the button; programs that open links in mails
// press none.
"use strict";
const [purpose, token] = location.hash.slice(1).split("=");
const tasks = {
  verify: {
    ask: "Confirm that this e-mail address is yours.", go: "Confirm", do: () => post("/api/auth/verify-email", { token }),
  },
  reset: {
    ask: "Set a new password. All your sessions end.", go: "Set password", show: ["password"],
    do: (form) => post("/api/auth/password/reset", { token, new_password: form.password.value }),
  },
  invite: {
    ask: "You are invited to a tenant. Log in to accept; the account's address must be the one that was invited.", go: "Accept", show: ["login", "no"],
    do: async (form) => {
      const login = await post("/api/auth/login", { email: form.email.value, password: form.current.value });
      if (!login.ok) return login;
      const accepted = await post("/api/invitations/accept", { token }, login.body.access_token);
      await post("/api/auth/logout", undefined, login.body.access_token);
      return accepted;
    },
    no: () => post("/api/invitations/decline", { token }),
  },
};

async function post(path, body, bearer) {
  const headers = {};
  if (body) headers["Content-Type"] = "application/json";
  if (bearer) headers.Authorization = "Bearer " + bearer;
  const answer = await fetch(path, { method: "POST", headers, body: body && JSON.stringify(body) });
  return { ok: answer.ok, body: await answer.json() };
}

const task = tasks[purpose];
if (task && token) {
  history.replaceState(null, "", location.pathname);
  const form = document.getElementById("form"), said = document.getElementById("said");
  document.getElementById("ask").textContent = task.ask;
  document.getElementById("go").textContent = task.go;
  for (const id of task.show || []) document.getElementById(id).hidden = false;
  said.textContent = "";
  form.hidden = false;
  const run = async (work) => {
    try {
      const { ok, body } = await work(form);
      const details = body.error && body.error.details ? Object.values(body.error.details).flat().join(" ") : "";
      said.textContent = ok ? body.message : details || body.detail;
      form.hidden = ok || body.error.code.toLowerCase() === "invalid_link";
    } catch {
      said.textContent = "Factum could not be reached. Try again.";
    }
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    run(task.do);
  });
  document.getElementById("no").addEventListener("click", () => run(task.no));
}
