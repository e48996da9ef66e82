// Three small things: a sign-in link fills its form by itself, pages that show something alive stay current or say
// that they are not, and what was entered and not saved is not lost without a question.

// The token stands behind '#', where no server, log or other site sees it.
const tokenField = document.getElementById("token");
function fill() {
  if (!tokenField || location.hash.length < 2) return;
  tokenField.value = decodeURIComponent(location.hash.slice(1));
  history.replaceState(null, "", location.pathname);
}
fill();
addEventListener("hashchange", fill); // the link was opened where the form stands already

const REFRESH_MS = 10_000;
const QUICK_MS = 2_000;

const old = document.createElement("p");
old.className = "wrong";
old.setAttribute("role", "status");
old.textContent = "Not current: the server or its data base does not answer, or you are signed out. This page tries again by itself.";

async function refresh() {
  const part = document.querySelector("[data-live]");
  if (!part) return;
  try {
    if (!document.hidden && !part.contains(document.activeElement)) {
      const answer = await fetch(location.href, { redirect: "error" });
      if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
      old.remove();
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("[data-live]");
      if (fresh && fresh.innerHTML !== part.innerHTML) part.replaceWith(fresh);
    }
  } catch {
    part.before(old); // what is shown stays
  }
  const now = document.querySelector("[data-live]");
  setTimeout(refresh, now.hasAttribute("data-quick") ? QUICK_MS : REFRESH_MS);
}
const first = document.querySelector("[data-live]");
if (first) setTimeout(refresh, first.hasAttribute("data-quick") ? QUICK_MS : REFRESH_MS);

const editing = document.querySelector("form.editing");
let entered = Boolean(document.querySelector("form.editing .error")); // it was refused, and is not saved
editing?.addEventListener("input", () => { entered = true; });
editing?.addEventListener("submit", () => { entered = false; });
addEventListener("beforeunload", (event) => {
  if (entered) event.preventDefault();
});
