import "reflect-metadata";
import "zone.js";
import { Component, NgModule } from "@angular/core";
import { HttpClient, HttpClientModule } from "@angular/common/http";
import { BrowserModule } from "@angular/platform-browser";
import { platformBrowserDynamic } from "@angular/platform-browser-dynamic";
import { NavigationEnd, Router, RouterModule } from "@angular/router";
import { AngularTokenModule, AngularTokenService } from "angular-token";

// It finds what a link has put into the URL by the router.
class Root {}
Component({ selector: "body", template: "<router-outlet></router-outlet>" })(Root);
class Page {}
Component({ template: "" })(Page);
class App {}
NgModule({
  declarations: [Root, Page],
  imports: [
    BrowserModule,
    HttpClientModule,
    RouterModule.forRoot([{ path: "**", component: Page }]),
    AngularTokenModule.forRoot({ apiBase: window.api }),
  ],
  bootstrap: [Root],
})(App);

const { injector } = await platformBrowserDynamic().bootstrapModule(App);
const auth = injector.get(AngularTokenService);
const router = injector.get(Router);
if (!router.navigated) await new Promise((resolve) => router.events.subscribe((event) => event instanceof NavigationEnd && resolve()));
const http = injector.get(HttpClient);

window.client = {
  // It validates only when it is told to, as its documentation does.
  ready: auth.userSignedIn() ? auth.validateToken().toPromise().then(({ data }) => data.email, () => null) : Promise.resolve(null),
  signUp: async ({ email: login, password }) => {
    const body = await auth.registerAccount({ login, password, passwordConfirmation: password }).toPromise();
    return body.data.email;
  },
  signIn: async ({ email: login, password }) => {
    await auth.signIn({ login, password }).toPromise();
    return auth.currentUserData.email;
  },
  validate: async () => (await auth.validateToken().toPromise()).data.email,
  get: (path) => http.get(window.api + path).toPromise().then(() => true, () => false),
  requestReset: ({ email: login }) => auth.resetPassword({ login }).toPromise(),
  setPassword: (password) => auth.updatePassword({ password, passwordConfirmation: password }).toPromise(),
  signOut: () => auth.signOut().toPromise(),
  token: () => localStorage.getItem("accessToken"),
};
